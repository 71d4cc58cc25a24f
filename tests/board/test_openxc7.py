"""The open flow of a Zynq-7000: its tools are stubs here; synthesis and what it gives have tests of their own."""

import json
import re

import pytest

from edgemoe.boards import BoardError, load_board
from edgemoe.boards import openxc7 as flow
from edgemoe.boards.bitstream import find_bitstream
from edgemoe.boards.hwh import hwh_text
from edgemoe.boards.openxc7 import bit_payload, build_open_bitstream, find_tools, reached_mhz, slower_clock

BOARD = load_board("pynq-z2")
WORDS = bytes.fromhex("ffffffff" * 8 + "aa995566" + "20000000")
USED = {"lut": 30_000, "ff": 20_000, "dsp": 218, "bram36": 132.0, "uram": 0}


def bit_file(words=WORDS):
    """As xc7frames2bit writes it."""
    header = bytes.fromhex("00090ff00ff00ff00ff0000001")
    for key, text in ((b"a", "edgemoe;Generator=xc7frames2bit"), (b"b", "xc7z020clg400-1"), (b"c", "d"), (b"d", "t")):
        value = text.encode() + b"\0"
        header += key + len(value).to_bytes(2, "big") + value
    return header + b"e" + len(words).to_bytes(4, "big") + words


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """All tools on PATH, their arguments in files of their names; ``reached`` is what nextpnr says."""
    folder, database = tmp_path / "bin", tmp_path / "db"
    folder.mkdir()
    (database / "zynq7" / BOARD.part).mkdir(parents=True)
    (database / "zynq7" / BOARD.part / "part.yaml").write_text("part")
    (tmp_path / "xc7z020clg400.bin").write_text("chip")
    (tmp_path / "made.bit").write_bytes(bit_file())
    log = "Info: Max frequency for clock 'clk': 48.12 MHz (FAIL at 142.86 MHz)"
    scripts = {
        "nextpnr-xilinx": f'echo "{log}"; echo "{log.replace("48.12", "55.30")}"; echo fasm > edgemoe.fasm',
        "fasm2frames": 'shift 5; echo frames > "$1"',
        "xc7frames2bit": f"cp '{tmp_path}/made.bit' edgemoe.bit",
    }
    for name, text in scripts.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/{name}.args"\n{text}\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("CHIPDB", str(tmp_path))
    monkeypatch.setenv("PRJXRAY_DB_DIR", str(database))
    monkeypatch.setattr(flow, "synthesize_system", lambda board, work, on_step: {"flow": "openxc7", "used": USED})
    return folder


def arguments(tmp_path, tool):
    return (tmp_path / f"{tool}.args").read_text().splitlines()


def test_from_netlist_to_bitstream(tools, tmp_path):
    out = tmp_path / "out"
    manifest = build_open_bitstream(BOARD, out, seed=7)
    placed = arguments(tmp_path, "nextpnr-xilinx")
    assert placed[placed.index("--seed") + 1] == "7" and placed[placed.index("--freq") + 1] == f"{BOARD.clock_mhz:g}"
    assert placed[placed.index("--chipdb") + 1] == str(tmp_path / "xc7z020clg400.bin")
    assert arguments(tmp_path, "fasm2frames")[:4] == ["--part", BOARD.part, "--db-root", str(tmp_path / "db/zynq7")]
    assert str(tmp_path / "db/zynq7" / BOARD.part / "part.yaml") in arguments(tmp_path, "xc7frames2bit")

    told = json.loads(manifest.read_text())
    assert told["reached_mhz"] == 55.3 and told["clock_mhz"] == 50.0
    assert told["wns_ns"] > 0 and told["flow"] == "openxc7"
    assert manifest.with_suffix(".bit").read_bytes() == bit_file()
    assert manifest.with_suffix(".bin").read_bytes() == bit_payload(bit_file())
    assert find_bitstream(BOARD, out) == manifest

    hwh = manifest.with_suffix(".hwh").read_text()
    divisors = re.findall(r'PCW_FCLK0_PERIPHERAL_DIVISOR\d" VALUE="(\d+)"', hwh)
    assert BOARD.pll_mhz / (int(divisors[0]) * int(divisors[1])) == 50.0
    assert "intc" not in hwh  # nothing waits for an interrupt that no controller forwards
    assert "intc" in hwh_text(BOARD)


def test_upstream_nextpnr(tools, tmp_path):
    (tools / "nextpnr-xilinx").rename(tools / "nextpnr-himbaechel")
    (tmp_path / "xc7z020clg400.bin").unlink()
    build_open_bitstream(BOARD, tmp_path / "out")
    placed = arguments(tmp_path, "nextpnr-xilinx")
    assert placed[placed.index("--device") + 1] == BOARD.part and "fasm=edgemoe.fasm" in placed


@pytest.mark.parametrize("until", ["synthesis", "route"])
def test_parts_of_it(tools, tmp_path, until):
    if until == "synthesis":
        for script in tools.iterdir():
            script.unlink()
    folder = build_open_bitstream(BOARD, tmp_path / "out", until=until)
    result = json.loads((folder / "result.json").read_text())
    assert ("reached_mhz" in result) == (until == "route")
    assert not list((tmp_path / "out").glob("*.json"))  # no manifest: there is no bitstream


@pytest.mark.parametrize("gone", ["nextpnr-xilinx", "fasm2frames", "xc7frames2bit", "chip", "part.yaml"])
def test_what_is_missing_is_named(tools, tmp_path, gone):
    places = {"chip": tmp_path / "xc7z020clg400.bin", "part.yaml": tmp_path / "db/zynq7" / BOARD.part / "part.yaml"}
    places.get(gone, tools / gone).unlink()
    with pytest.raises(BoardError, match=gone if gone != "chip" else "CHIPDB") as raised:
        find_tools(BOARD)
    others = {"nextpnr-xilinx (", "fasm2frames on", "xc7frames2bit on", "CHIPDB", "part.yaml of"}
    named = [other for other in others if other in str(raised.value)]
    assert len(named) == 1 and "openXC7" in str(raised.value)


def test_everything_that_is_missing_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError) as raised:
        find_tools(BOARD)
    assert all(
        name in str(raised.value) for name in ("nextpnr-xilinx", "fasm2frames", "xc7frames2bit", "part.yaml", "CHIPDB")
    )


def test_a_board_that_no_open_tool_places(tools, tmp_path):
    with pytest.raises(BoardError, match="zcu102 has an xczu9eg: no open tool places that; use Vivado"):
        build_open_bitstream(load_board("zcu102"), tmp_path)


@pytest.mark.parametrize("tool", ["nextpnr-xilinx", "fasm2frames", "xc7frames2bit"])
def test_a_tool_that_fails(tools, tmp_path, tool):
    (tools / tool).write_text("#!/bin/sh\necho hello\necho 'ERROR: no such bel'\nexit 3\n")
    with pytest.raises(BoardError, match=r"failed \(3\): ERROR: no such bel. Its output: .*\.log"):
        build_open_bitstream(BOARD, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("tool", "makes"),
    [("nextpnr-xilinx", "edgemoe.fasm"), ("fasm2frames", "edgemoe.frames"), ("xc7frames2bit", "edgemoe.bit")],
)
def test_a_tool_that_writes_nothing(tools, tmp_path, tool, makes):
    """What an earlier run has left there is not taken for this one's."""
    manifest = build_open_bitstream(BOARD, tmp_path / "out")
    before = manifest.read_bytes()
    (tools / tool).write_text("#!/bin/sh\necho \"Info: Max frequency for clock 'clk': 90 MHz\"\n")
    with pytest.raises(BoardError, match=rf"ended well, but wrote no {makes}\. Its output: .*\.log"):
        build_open_bitstream(BOARD, tmp_path / "out")
    assert manifest.read_bytes() == before


def test_a_tool_that_cannot_be_started(tools, tmp_path):
    (tools / "fasm2frames").write_text("#!/no/such/interpreter\n")
    with pytest.raises(BoardError, match="fasm2frames cannot be started: .*No such file or directory"):
        build_open_bitstream(BOARD, tmp_path / "out")


def test_a_bitstream_that_is_none(tools, tmp_path):
    (tmp_path / "made.bit").write_text("hello")
    with pytest.raises(BoardError, match=r"wrote .*edgemoe\.bit, but this is no bitstream \(5 bytes"):
        build_open_bitstream(BOARD, tmp_path / "out")


def test_relative_places(tools, tmp_path, monkeypatch):
    """The tools run in another folder than this."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin:/usr/bin:/bin")
    monkeypatch.setenv("CHIPDB", ".")
    monkeypatch.setenv("PRJXRAY_DB_DIR", "db")
    build_open_bitstream(BOARD, tmp_path / "an 'out' \"put\"")
    assert str(tmp_path / "xc7z020clg400.bin") in arguments(tmp_path, "nextpnr-xilinx")
    assert str(tmp_path / "db/zynq7") in arguments(tmp_path, "fasm2frames")


def test_the_slowest_of_several_clocks():
    """After routing each has a new estimate; the design's clock is not the last one that is named."""
    lines = [("a", 30), ("b", 20), ("a", 48.5), ("b", 91.25)]
    log = "\n".join(f"Info: Max frequency for clock '{name}': {mhz} MHz (PASS at 12.00 MHz)" for name, mhz in lines)
    assert reached_mhz(log) == 48.5


def test_no_clock_in_the_output():
    with pytest.raises(BoardError, match="has no clock"):
        reached_mhz("Info: done")


@pytest.mark.parametrize(("limit", "clock"), [(500.0, 142.85), (142.0, 125.0), (50.0, 50.0), (9.0, 8.92)])
def test_clocks_that_the_pll_gives(limit, clock):
    assert slower_clock(BOARD, limit) == clock


def test_no_clock_is_slow_enough():
    with pytest.raises(BoardError, match=r"no clock below 0\.1 MHz"):
        slower_clock(BOARD, 0.1)


def test_words_are_turned_round():
    raw = bit_payload(bit_file())
    assert len(raw) == len(WORDS) and raw[32:36] == bytes.fromhex("665599aa")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"bit",
        bit_file()[:-1],
        bit_file() + b"x",
        bit_file(b""),
        bit_file(WORDS + b"x"),
        bit_file(bytes(64)),
        bytes(99),
    ],
)
def test_what_is_no_bitstream(content):
    with pytest.raises(BoardError, match="this is no bitstream"):
        bit_payload(content)


def test_command_line(edgemoe, tmp_path, monkeypatch):
    edgemoe("boards", "bitstream", "pynq-z2", "--flow", "other").refused("--flow must be one of vivado, openxc7")
    edgemoe("boards", "bitstream", "pynq-z2", "--until", "x").refused(
        "--until must be one of synthesis, route, bitstream"
    )
    edgemoe("boards", "bitstream", "kv260", "--flow", "openxc7", "--until", "synthesis").refused("use Vivado")
    monkeypatch.setenv("PATH", str(tmp_path))
    edgemoe("boards", "bitstream", "pynq-z2", "--flow", "openxc7").refused("needs nextpnr-xilinx")
