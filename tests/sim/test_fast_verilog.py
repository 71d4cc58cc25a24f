# amaranth: UnusedElaboratable=no
"""What Verilator is given in place of the accelerator's Verilog: the same in every cycle, and only what is known."""

import ctypes
import re

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.engines.matmul.unpack import WeightUnpack
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.verilog import generate
from edgemoe_sim.build import accelerator_verilog, build_simulation
from edgemoe_sim.compilation import BuildError
from edgemoe_sim.fast_verilog import fast_verilog, rewrite

BYTES, ROWS = 20, 5


class Rows(wiring.Component):
    """A memory with an enable a byte; there are addresses without a row."""

    enable: In(BYTES)
    row: In(3)
    data: In(8 * BYTES)
    read_row: In(3)
    read: Out(8 * BYTES)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8 * BYTES, depth=ROWS, init=[])
        write, read = memory.write_port(granularity=8), memory.read_port()
        m.d.comb += [write.en.eq(self.enable), write.addr.eq(self.row), write.data.eq(self.data)]
        m.d.comb += [read.addr.eq(self.read_row), self.read.eq(read.data)]
        return m


HARNESS = """
#include <cstdint>
#include "Vedgemoe.h"
double sc_time_stamp() { return 0; }
static uint64_t state = 1;
static uint32_t draw() { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state >> 32; }
// Every byte in every mode, then all zeros, all ones and anything; few or all enables: the first cycle that differs,
// or -1.
extern "C" int compare(int cycles) {
    VerilatedContext context;
    Vedgemoe top{&context};
    for (int cycle = 0; cycle < cycles; cycle++) {
        const int kind = draw() % 6;
        for (int i = 0; i < 5; i++) top.data[i] = kind == 0 ? 0 : kind == 1 ? ~0u : draw();
        if (cycle < 1024) for (int i = 0; i < 5; i++) top.data[i] = 0x01010101u * (cycle / 4);
        top.mode = cycle < 1024 ? cycle : draw();
        top.enable = kind == 2 ? 0 : kind == 3 ? 0xfffff : kind == 4 ? 1u << draw() % 20 : draw() & 0xfffff;
        top.row = draw();
        top.read_row = draw() & 1 ? top.row : draw();
        top.clk = 0;
        top.eval();
        if (top.differs) return cycle;
        top.clk = 1;
        top.eval();
        if (top.differs) return cycle;
    }
    return -1;
}
"""
TOP = """
module edgemoe(input clk, input [159:0] data, input [1:0] mode, input [19:0] enable, input [2:0] row, read_row,
               output differs);
  wire [159:0] rows, fast_rows, weights, fast_weights;
  wire [2:0] at = read_row % 5;  // what is read where there is no row, nothing says
  gold_rows a(.clk(clk), .rst(1'b0), .enable(enable), .row(row), .data(data), .read_row(at), .read(rows));
  fast_rows b(.clk(clk), .rst(1'b0), .enable(enable), .row(row), .data(data), .read_row(at), .read(fast_rows));
  gold_unpack c(.data(data), .nibbles(|mode), .high(mode[1]), .weights(weights));
  fast_unpack d(.data(data), .nibbles(|mode), .high(mode[1]), .weights(fast_weights));
  assign differs = rows != fast_rows || weights != fast_weights;
endmodule
"""


def renamed(text, name):
    """The design in ``text`` under another name."""
    return re.sub(r"\bedgemoe\b(?=\.top| ?\()", name, text)


@pytest.fixture(scope="module")
def originals():
    return {"rows": generate(PRESETS["tiny"], Rows()), "unpack": generate(PRESETS["tiny"], WeightUnpack(BYTES))}


def test_the_same_every_cycle(originals, tmp_path):
    fast = {name: rewrite(text) for name, text in originals.items()}
    assert "if (|enable)" in fast["rows"] and "d30" in fast["unpack"]
    assert "data[159], data[159]" in originals["unpack"] and "data[159], data[159]" not in fast["unpack"]
    parts = [renamed(text, f"gold_{name}") for name, text in originals.items()]
    parts += [renamed(text, f"fast_{name}") for name, text in fast.items()]
    harness = tmp_path / "compare.cpp"
    harness.write_text(HARNESS)
    library = ctypes.CDLL(str(build_simulation("\n".join([*parts, TOP]), harness, "comparison", quiet=True)))
    assert library.compare(100_000) == -1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if (enable[3])", "if (enable[4])"),
        ("[31:24] <=", "[31:25] <="),
        ("if (enable[3])", "if (other[3])"),
        ("endmodule", "  always @(posedge clk)\n    memory[row] <= 0;\nendmodule"),
        ("input [19:0] enable;", "input [20:0] enable;"),
        ("  wire [19:0] enable;", "  wire [20:0] enable;"),
    ],
)
def test_another_memory_stays_as_it_is(originals, old, new):
    text = originals["rows"]
    assert rewrite(text) != text
    if (changed := text.replace(old, new)) == text:
        pytest.skip(f"this Yosys does not write {old!r}")
    if "20:0" in new:
        changed = changed.replace("[19:0] enable", "[20:0] enable")
    assert rewrite(changed) == changed


@pytest.mark.parametrize("old", ["data[159], data[159]", "data[7:4]", "data[3:0]"])
def test_another_concatenation_stays_as_it_is(originals, old):
    text = originals["unpack"]
    assert old in text
    changed = text.replace(old, old.replace("data[", "data[1"), 1)
    assert changed != text
    kept = next(line for line in changed.splitlines() if old.replace("data[", "data[1") in line)
    assert kept in rewrite(changed)


@pytest.mark.parametrize("name", ["tiny", "pynq-z2"])
def test_nothing_else_of_the_accelerator_changes(name):
    text = accelerator_verilog(PRESETS[name])
    fast = rewrite(text)
    banks = len(re.findall(r"^  reg \[\d+:0\] bank_\d+ \[", text, re.M))
    assert banks and len(re.findall(r"^ +if \(\|", fast, re.M)) >= banks
    touched = r"\[[^]]*\] <= |if \(\S+ ?\[\d+\]\)|if \(\||weights = |always @\(posedge clk\)|^  end$"
    assert [line for line in text.splitlines() if not re.search(touched, line)] == [
        line for line in fast.splitlines() if not re.search(touched, line)
    ]
    assert rewrite(fast) == fast


def test_verbatim(originals, monkeypatch):
    monkeypatch.delenv("EDGEMOE_RTL", raising=False)
    assert fast_verilog(originals["rows"]) == rewrite(originals["rows"])
    monkeypatch.setenv("EDGEMOE_RTL", "verbatim")
    assert fast_verilog(originals["rows"]) == originals["rows"]
    monkeypatch.setenv("EDGEMOE_RTL", "verbose")
    with pytest.raises(BuildError, match="must be verbatim or empty, not 'verbose'"):
        fast_verilog(originals["rows"])
