"""The comparison of the model of nets with a routed design: two registers, a LUT between, all delays known."""

import pytest
import timing_check

from edgemoe.boards.timing.nets import NetModel
from edgemoe.boards.timing.sdf import Arc, Check, Wire, read_sdf

SDF = r"""
(DELAYFILE
  (SDFVERSION "3.0")
  (TIMESCALE 1ps)
  (CELL
    (CELLTYPE "TRELLIS_FF")
    (INSTANCE a\[0\]_TRELLIS_FF_Q)
    (DELAY
      (ABSOLUTE
        (IOPATH CLK Q (500:500:525) (500:500:525))
      )
    )
  )
  (CELL
    (CELLTYPE "TRELLIS_COMB")
    (INSTANCE x_LUT4_Z)
    (DELAY
      (ABSOLUTE
        (IOPATH A F (200:200:236) (200:200:236))
      )
    )
  )
  (CELL
    (CELLTYPE "TRELLIS_FF")
    (INSTANCE b_TRELLIS_FF_Q)
    (TIMINGCHECK
      (SETUPHOLD (posedge DI) (posedge CLK) (0:0:0) (0:0:0))
      (SETUPHOLD CE (posedge CLK) (100:100:100) (0:0:0))
    )
  )
  (CELL
    (CELLTYPE "top")
    (INSTANCE )
    (DELAY
      (ABSOLUTE
        (INTERCONNECT a\[0\]_TRELLIS_FF_Q/Q x_LUT4_Z/A (1000:1000:1100) (1000:1000:1100))
        (INTERCONNECT a\[0\]_TRELLIS_FF_Q/Q b_TRELLIS_FF_Q/CE (400:400:400) (400:400:400))
        (INTERCONNECT a\[0\]_TRELLIS_FF_Q/Q x_LUT4_Z/A (1000:1000:1100) (1000:1000:1100))
        (INTERCONNECT x_LUT4_Z/F b_TRELLIS_FF_Q/DI (0:0:0) (0:0:0))
        (INTERCONNECT clk/O b_TRELLIS_FF_Q/CLK (2000:2000:2000) (2000:2000:2000))
      )
    )
  )
)
"""


def test_reading():
    items = list(read_sdf(SDF.splitlines()))
    assert items[0] == Arc("TRELLIS_FF", r"a\[0\]_TRELLIS_FF_Q", "CLK", "Q", 0.525, True)
    assert items[1] == Arc("TRELLIS_COMB", "x_LUT4_Z", "A", "F", 0.236, False)
    assert items[3] == Check("TRELLIS_FF", "b_TRELLIS_FF_Q", "CE", 0.1)
    assert items[4] == Wire(r"a\[0\]_TRELLIS_FF_Q/Q", "x_LUT4_Z/A", 1.1)
    assert len(items) == 9


def test_comparison():
    found = timing_check.compare(SDF.splitlines(), NetModel(0.7, 0.0))
    assert found.routed == {"b": pytest.approx(0.525 + 1.1 + 0.236)}
    assert found.modelled == {"b": pytest.approx(0.525 + 0.7 + 0.236 + 0.7)}
    assert found.ratio == pytest.approx(2.161 / 1.861) and found.common(10) == 1
    (two,) = found.nets  # the other stays in its slice
    assert two[:4] == (2, 2, 2, pytest.approx(0.75)) and two[5] == 0.7


def test_command(tmp_path, capsys):
    file = tmp_path / "x.sdf"
    file.write_text(SDF)
    assert timing_check.main([str(file), "--growth", "0"]) == 0
    text = capsys.readouterr().out
    assert "modelled / routed: 1.16" in text and "of the 10 slowest, 1 are the same" in text
