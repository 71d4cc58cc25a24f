from edgemoe_hw.spec import tables
from support import golden


def test_tables_equal_their_formulas() -> None:
    assert tables.EXP2 == [golden.exp2(j) for j in range(64)]
    assert tables.EXP2G == [golden.exp2g(j) for j in range(256)]
    assert tables.RECIP == [golden.recip(i) for i in range(1024)]
    assert tables.RSQRT[:256] == [0] * 256
    assert tables.RSQRT[256:] == [golden.rsqrt(i) for i in range(256, 1024)]


def test_known_entries() -> None:
    assert tables.EXP2[0] == 4080
    assert tables.EXP2G[0] == 32767
    assert tables.RECIP[0] == 32752 and tables.RECIP[-1] == 16388
    assert max(tables.RSQRT) < 1 << 16
