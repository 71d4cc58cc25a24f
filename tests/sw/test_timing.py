"""Static timing of small netlists made by hand, whose delays are sums that one can write down."""

import json
import math

import numpy as np
import pytest

from edgemoe.boards.board import board_names, load_board
from edgemoe.boards.timing import estimate as module
from edgemoe.boards.timing.cells import timing_of_cell
from edgemoe.boards.timing.nets import GRADES, NetModel, grade_of
from edgemoe.boards.timing.report import timing_of
from edgemoe.configs import find_config
from edgemoe.errors import SynthesisError

SERIES7 = GRADES["xc7", "-1"]
NET = 0.7
CLOCK_TO_OUT, SETUP, LUT = 0.456, 0.06, 0.124


class Rtlil:
    """A module of RTLIL, cell by cell."""

    def __init__(self, *wires: str, module: str = "edgemoe") -> None:
        self.head = [f"module \\{module}", *(f"  wire {wire}" for wire in wires)]
        self.body: list[str] = []

    def cell(self, kind: str, name: str, source: str = "", parameters: dict[str, str] | None = None, **pins: str):
        if source:
            self.body.append(f'  attribute \\src "{source}"')
        self.body.append(f"  cell \\{kind} {name}")
        self.body += [f"    parameter \\{key} {value}" for key, value in (parameters or {}).items()]
        self.body += [f"    connect \\{pin} {signal}" for pin, signal in pins.items()]
        self.body.append("  end")
        return self

    def register(self, name: str, d: str, q: str, source: str = ""):
        return self.cell("FDRE", name, source, C="\\clk", CE="1'1", R="1'0", D=d, Q=q)

    def lines(self) -> list[str]:
        # Another module before, as Yosys prints the library's cells.
        return ["module \\FDRE", "  wire output 1 \\Q", "end", *self.head, *self.body, "end"]

    def timing(self, model: NetModel | None = None, grade=SERIES7, **options):
        options.setdefault("ports", False)
        return timing_of(self.lines(), grade, model or NetModel(NET, 0.0), **options)


def through_a_lut() -> Rtlil:
    netlist = Rtlil("\\clk", "\\top.a", "\\top.b", "$x")
    netlist.register("$1", "1'0", "\\top.a", "/home/me/hw/edgemoe_hw/engines/load.py:12|/share/ff_map.v:68.41-68.95")
    netlist.cell("LUT2", "$2", I0="\\top.a", I1="1'1", O="$x")
    return netlist.register("$3", "$x", "\\top.b", "/home/me/hw/edgemoe_hw/top.py:7")


def test_register_lut_register():
    result = through_a_lut().timing()
    (path,) = result["paths"]
    assert path["ns"] == pytest.approx(CLOCK_TO_OUT + NET + LUT + NET + SETUP)
    assert path["logic_ns"] == pytest.approx(CLOCK_TO_OUT + LUT + SETUP) and path["nets_ns"] == pytest.approx(2 * NET)
    assert (path["from"], path["to"], path["pin"], path["levels"]) == ("a", "b", "D", 1)
    assert path["from_source"] == "edgemoe_hw/engines/load.py:12" and path["to_source"] == "edgemoe_hw/top.py:7"
    assert path["sources"] == ["edgemoe_hw/engines/load.py:12", "edgemoe_hw/top.py:7"]
    assert result["fmax_mhz"] == pytest.approx(1000 / path["ns"], abs=0.05)
    assert result["ends"] == {"2": 1} and "estimate" in result["estimate"]


def test_a_net_with_many_loads_is_slower():
    netlist = Rtlil("\\clk", "\\a", "width 32 \\b").register("$0", "1'0", "\\a")
    for bit in range(32):
        netlist.register(f"$b{bit}", "\\a", f"\\b [{bit}]")
    model = NetModel(0.7, 0.1)
    result = netlist.timing(model)
    assert result["period_ns"] == pytest.approx(CLOCK_TO_OUT + 0.7 * (1 + 0.1 * 3) + SETUP)
    assert len(result["paths"]) == 1 and result["paths"][0]["most_loads"] == 32
    assert result["net_model"]["growth"] == 0.1 and "0.7 ns a net up to 4 loads" in result["net_model"]["text"]
    assert model.delays(np.array([0, 1, 4, 8, 5000]))[:4] == pytest.approx([0.7, 0.7, 0.7, 0.77])
    assert NetModel().delays(np.arange(9)).min() >= 0.7


def adder(bits: int) -> Rtlil:
    """A sum of registers ``a`` and ``b`` in CARRY4s, the carry out in a register too."""
    slices = bits // 4
    netlist = Rtlil(
        "\\clk", f"width {bits} \\a", f"width {bits} \\sum", f"width {bits} $o", f"width {bits} $co", "\\carry"
    )
    for bit in range(bits):
        netlist.register(f"$a{bit}", "1'0", f"\\a [{bit}]").register(f"$s{bit}", f"$o [{bit}]", f"\\sum [{bit}]")
    for index in range(slices):
        part = f"[{4 * index + 3}:{4 * index}]"
        carry = "1'0" if index == 0 else f"$co [{4 * index - 1}]"
        netlist.cell(
            *("CARRY4", f"$c{index}"),
            S=f"\\a {part}",
            DI="4'0000",
            CI=carry,
            CYINIT="1'0",
            O=f"$o {part}",
            CO=f"$co {part}",
        )
    return netlist.register("$carry", f"$co [{bits - 1}]", "\\carry")


def test_carry_chain():
    result = adder(16).timing()
    # S1 of the first slice to its last carry, two slices, and the sum in the last one, whose O1 is the latest.
    chain = 0.528 + 2 * 0.114 + 0.334
    assert result["period_ns"] == pytest.approx(CLOCK_TO_OUT + NET + chain + NET + SETUP)
    carry = next(path for path in result["paths"] if path["to"] == "carry")
    assert carry["ns"] == pytest.approx(CLOCK_TO_OUT + NET + 0.528 + 3 * 0.114 + NET + SETUP)
    assert carry["cells"] == ["FDRE"] + ["CARRY4"] * 4


def test_carry8_is_two_carry4():
    arcs = {arc[:2]: arc[2] for arc in timing_of_cell("CARRY8", {}).arcs}
    assert arcs[("CI", 0), ("CO", 7)] == pytest.approx(2 * 0.114)
    assert arcs[("S", 1), ("CO", 7)] == pytest.approx(0.528 + 0.114)
    assert arcs[("S", 5), ("O", 6)] == arcs[("S", 1), ("O", 2)] and (("S", 5), ("O", 2)) not in arcs
    assert len(arcs) == len(timing_of_cell("CARRY8", {}).arcs)  # each once


@pytest.mark.parametrize("registered,delay", [("0", 2.454), ("1", 0.882), ("32'1", 0.882)])
def test_block_ram(registered, delay):
    netlist = Rtlil("\\clk", "\\q", "width 16 $d", "width 14 \\address").register("$q", "$d [3]", "\\q")
    parameters = {"DOA_REG": registered, "RAM_MODE": '"TDP"', "INIT_00": "256'0"}
    netlist.cell("RAMB18E1", "\\top.memory", "", parameters, DOADO="$d", ADDRARDADDR="\\address", CLKARDCLK="\\clk")
    netlist.register("$a", "1'0", "\\address [0]")
    ends = {path["to"]: path for path in netlist.timing()["paths"]}
    assert ends["q"]["ns"] == pytest.approx(delay + NET + SETUP) and ends["q"]["from"] == "RAMB18E1 memory"
    to_memory = ends["RAMB18E1 memory"]
    inside = 2.454 if delay < 1 else 0.0  # from the array to the output register
    assert to_memory["ns"] == pytest.approx(max(CLOCK_TO_OUT + NET + 0.566, inside))


REGISTERS = "A B C D AD M P INMODE OPMODE ALUMODE CARRYIN CARRYINSEL ACASC BCASC".split()


def dsp(used: str, **others: str) -> dict[str, str]:
    return {**{f"{name}REG": str(int(name in used.split())) for name in REGISTERS}, "USE_DPORT": '"FALSE"', **others}


def captures(used: str, **others: str) -> dict[str, float]:
    return dict(
        timing_of_cell("DSP48E1", {key: value.strip('"') for key, value in dsp(used, **others).items()}).captures
    )


def launches(used: str, **others: str) -> dict[str, float]:
    return dict(
        timing_of_cell("DSP48E1", {key: value.strip('"') for key, value in dsp(used, **others).items()}).launches
    )


def test_dsp_by_its_registers():
    assert launches("A B M P")["P"] == 0.434 and launches("A B M")["P"] == 2.305 and launches("A B")["P"] == 4.009
    assert "P" not in launches("")
    assert captures("M")["A"] == 1.928 and captures("M")["B"] == 1.743 and captures("A B M P")["A"] == 0.362
    assert captures("M D", USE_DPORT="TRUE")["A"] == 3.288 and captures("M D", USE_DPORT="TRUE")["D"] == 0.413
    assert captures("M AD", USE_DPORT="TRUE")["A"] == 1.756 and captures("P")["B"] == 3.536
    assert captures("M P")["PCIN"] == 1.400 and captures("C")["C"] == 0.233


def test_periods_inside_a_dsp():
    """Close to the Fmax of a -1 part: 464 MHz with all registers."""

    def inside(used: str, **others: str) -> float:
        return timing_of_cell("DSP48E1", {k: v.strip('"') for k, v in dsp(used, **others).items()}).inside

    assert 1000 / inside("A B M P") == pytest.approx(464, rel=0.03)
    assert inside("A B P") == pytest.approx(4.009 - 0.119)
    assert inside("A B D M", USE_DPORT="TRUE") == pytest.approx(5.368 - 1.913)
    assert inside("M") == 0.0


def test_dsp_cascade():
    """Two products added by PCIN: the cascade's wire costs nothing; without P registers it is one path."""
    for registers, expected in (("M", 2.500 + 1.518 + NET + SETUP), ("M P", 0.434 + NET + SETUP)):
        netlist = Rtlil("\\clk", "width 48 $pc", "width 48 $p", "\\q")
        netlist.cell("DSP48E1", "\\top.first", "", dsp(registers), CLK="\\clk", PCOUT="$pc")
        netlist.cell("DSP48E1", "\\top.second", "", dsp(registers), CLK="\\clk", PCIN="$pc", P="$p")
        netlist.register("$q", "$p [5]", "\\q")
        path = next(path for path in netlist.timing()["paths"] if path["to"] == "q")
        assert path["ns"] == pytest.approx(expected), registers


def test_ultrascale_cells_have_the_same_functions():
    """Other pins and parameters, the same delays."""
    pre_adder = timing_of_cell("DSP48E2", {**{f"{name}REG": "0" for name in REGISTERS}, "MREG": "1", "AMULTSEL": "AD"})
    assert dict(pre_adder.captures)["D"] == 3.158 and dict(pre_adder.launches)["P"] == 2.305
    memory = timing_of_cell("RAMB36E2", {"DOA_REG": "1", "DOB_REG": "0"})
    assert dict(memory.launches)["DOUTADOUT"] == 0.882 and dict(memory.launches)["DOUTBDOUT"] == 2.454
    assert dict(memory.captures)["DINBDIN"] == 0.737 and dict(memory.captures)["ADDRBWRADDR"] == 0.566
    large = timing_of_cell("URAM288", {"OREG_A": "FALSE", "OREG_B": "TRUE"})
    assert dict(large.launches) == {"DOUT_A": 2 * 2.454, "DOUT_B": 0.882}
    assert {"ADDR_A", "DIN_B", "BWE_A", "EN_B", "RDB_WR_A"} <= dict(large.captures).keys()
    assert dict(timing_of_cell("RAM32M16", {}).captures)["ADDRH"] == 0.362
    for kind in ("RAM64M8", "RAM64X8SW", "RAM32X16DR8", "RAM256X1D", "RAM512X1S", "SRLC32E", "MUXF9", "FDSE", "FDCE"):
        assert timing_of_cell(kind, {}).captures or timing_of_cell(kind, {}).arcs, kind


def test_memory_of_luts():
    netlist = Rtlil("\\clk", "width 5 \\row", "width 2 $d", "\\q", "\\we").register("$q", "$d [0]", "\\q")
    for bit in range(5):
        netlist.register(f"$r{bit}", "1'0", f"\\row [{bit}]")
    netlist.register("$we", "1'0", "\\we")
    netlist.cell("RAM32M", "\\m", ADDRA="\\row", DOA="$d", WE="\\we", WCLK="\\clk", DIA="2'00")
    ends = {path["to"]: path["ns"] for path in netlist.timing()["paths"]}
    assert ends["q"] == pytest.approx(max(CLOCK_TO_OUT + NET + 0.157, 1.19) + NET + SETUP)
    assert max(ends.values()) == pytest.approx(ends["q"])
    small = Rtlil("\\clk", "\\a", "$d", "\\q").register("$a", "1'0", "\\a").register("$q", "$d", "\\q")
    small.cell("RAM32X1D", "\\m", DPRA3="\\a", DPO="$d", WCLK="\\clk", WE="1'0")
    assert small.timing()["period_ns"] == pytest.approx(CLOCK_TO_OUT + NET + 0.157 + NET + SETUP)
    shift = Rtlil("\\clk", "$d", "\\q").register("$q", "$d", "\\q").cell("SRL16E", "$s", D="\\q", Q="$d", CE="1'1")
    assert shift.timing()["period_ns"] == pytest.approx(1.476 + NET + SETUP)


def test_wide_multiplexer_and_other_names_of_a_signal():
    netlist = Rtlil("\\clk", "\\a", "width 2 \\alias", "$x", "$y", "\\q").register("$a", "1'0", "\\a")
    netlist.cell("MUXF7", "$m", I0="\\alias [1]", I1="1'0", S="1'0", O="$x")
    netlist.cell("INV", "$i", I="$x", O="$y").register("$q", "$y", "\\q")
    netlist.body.append("  connect \\alias { \\a 1'0 }")
    assert netlist.timing()["period_ns"] == pytest.approx(CLOCK_TO_OUT + NET + 0.225 + NET + LUT + NET + SETUP)


def test_ports_count_as_those_of_the_processing_system():
    netlist = Rtlil("input 1 \\clk", "input 2 \\m0_axi_rvalid", "output 3 \\m0_axi_rready", "\\a", "$x")
    netlist.register("$a", "\\m0_axi_rvalid", "\\a")
    netlist.cell("LUT1", "$l", I0="\\m0_axi_rvalid", O="\\m0_axi_rready")
    result = netlist.timing(ports=True)
    path = result["paths"][0]
    assert path["ns"] == pytest.approx(1.45 + NET + LUT + NET + 0.84)
    assert (path["from"], path["to"]) == ("port m0_axi_rvalid", "port m0_axi_rready")
    with pytest.raises(SynthesisError, match="no path ends in a register"):
        netlist.timing()


def test_distinct_paths():
    """Bits of a register, and registers that differ by a number, are one line."""
    result = adder(8).timing()
    assert [path["to"] for path in result["paths"]] == ["sum", "carry"]
    assert len(adder(8).timing(paths=1)["paths"]) == 1


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(SynthesisError, match="no delays are known of cells of type GTXE2"):
        through_a_lut().cell("GTXE2", "$g").timing()
    loop = Rtlil("\\clk", "$a", "$b").cell("LUT1", "$1", I0="$a", O="$b").cell("LUT1", "$2", I0="$b", O="$a")
    with pytest.raises(SynthesisError, match="2 signals depend on themselves"):
        loop.timing()
    with pytest.raises(SynthesisError, match="no module other"):
        through_a_lut().timing(top="other")
    broken = Rtlil("\\clk").register("$1", "\\gone", "\\clk")
    with pytest.raises(SynthesisError, match="no wire .gone"):
        broken.timing()


def test_grades():
    assert grade_of("xc7", "xc7z020clg400-1").factor == 1.0
    assert grade_of("xcup", "xck26-sfvc784-2LV-c").factor > grade_of("xcup", "xczu9eg-ffvb1156-2-e").factor
    assert grade_of("xcup", "xczu3eg-sbva484-1-i").name == "-1"
    with pytest.raises(SynthesisError, match="speed grade of 'xczu9eg-ffvb1156-3-e'.*known: -1 of xc7"):
        grade_of("xcup", "xczu9eg-ffvb1156-3-e")
    slow, fast = (through_a_lut().timing(grade=GRADES[key])["period_ns"] for key in (("xc7", "-1"), ("xcup", "-2")))
    assert fast == pytest.approx(0.49 * slow, abs=0.001)


@pytest.mark.parametrize(
    "grade,measured", [("-2", (544, 565, 410)), ("-1", (456, 468, 338)), ("-2LV", (440, 453, 323))]
)
def test_factors_follow_from_their_source(grade, measured):
    """AMD DS925's DSP48E2 without MREG, without ADREG, without either, over Project X-Ray's DSP48E1."""
    periods = (4.009 - 0.119, 5.368 - 1.913, 5.368 - 0.119)
    ratios = [1000 / mhz / period for mhz, period in zip(measured, periods, strict=True)]
    assert GRADES["xcup", grade].factor == math.ceil(100 * sum(ratios) / 3) / 100


@pytest.mark.parametrize("board", board_names())
def test_every_board_has_a_grade(board):
    device, part = module.target_of(load_board(board).config)
    assert part == load_board(board).part and grade_of(device.family, part)


def test_command(edgemoe, tmp_path):
    file, out = tmp_path / "tiny.il", tmp_path / "out"
    file.write_text("\n".join(through_a_lut().lines()))
    text = edgemoe.ok("timing", "--config", "tiny", "--netlist", file, "--out", out, "--growth", 0)
    assert "estimated: 490.2 MHz" in text and "from a (engines/load.py:12)" in text and "to   b.D (top.py:7)" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    result = json.loads((out / "tiny.json").read_text())
    assert result["config_hash"] == find_config("tiny").content_hash and result["part"] == "xc7z020clg400-1"
    assert result["fmax_mhz"] == 490.2 and result["paths"] and result["net_model"]["base"] == 0.7
    edgemoe("timing", "--netlist", tmp_path / "missing.il").refused("no netlist")


def test_the_command_synthesizes_first(tmp_path, monkeypatch):
    def synthesize(config, out, *, device, on_step):
        on_step("ABC pass")
        out.mkdir(parents=True)
        (out / f"{config.name}.il").write_text("\n".join(through_a_lut().lines()))

    monkeypatch.setattr(module, "synthesize", synthesize)
    steps = []
    result = module.estimate(find_config("kv260"), tmp_path, model=NetModel(NET, 0.0), on_step=steps.append)
    assert steps == ["ABC pass", "static timing"] and result["device"] == "xck26"
    assert result["period_ns"] == pytest.approx(0.61 * 2.04, abs=0.001)
