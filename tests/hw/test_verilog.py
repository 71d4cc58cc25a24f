# amaranth: UnusedElaboratable=no
"""Verilog and RTLIL text: only the zeros of memories are left out."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.verilog import generate, generate_rtlil


class _Empty(wiring.Component):
    """The same memory, all zeros."""

    address: In(3)
    data: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=8, init=[])
        read = memory.read_port()
        m.d.comb += [read.addr.eq(self.address), self.data.eq(read.data)]
        return m


class _Part(wiring.Component):
    """A memory with one entry that is not zero, and a bit that logic sets to zero."""

    address: In(3)
    data: Out(8)
    clear: In(1)
    bits: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=8, init=[0, 0, 0, 5])
        read = memory.read_port()
        m.d.comb += [read.addr.eq(self.address), self.data.eq(read.data), self.bits.eq(self.address)]
        with m.If(self.clear):
            m.d.comb += self.bits[2].eq(0)
        return m


def test_only_zeros_of_memories_are_left_out():
    text = generate(PRESETS["tiny"], _Part())
    blocks = text.split("initial begin")[1:]
    initial = "".join(block.split("end\n")[0] for block in blocks)
    assert "8'h05" in initial and "8'h00" not in initial
    assert "[2] = 1'h0;" in text
    assert text == generate(PRESETS["tiny"], _Part())


def test_only_memories_of_zeros_are_not_set_in_rtlil():
    assert "$meminit_v2" not in generate_rtlil(PRESETS["tiny"], _Empty())
    text = generate_rtlil(PRESETS["tiny"], _Part())
    assert text.count("cell $meminit_v2") == 1 and "cell $memrd_v2" in text
    assert "test_verilog.py:" in text
