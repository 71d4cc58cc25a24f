# amaranth: UnusedElaboratable=no
"""Small building blocks: products, cuts, trees and shared ports, each against Python's own arithmetic."""

import random

import pytest
from amaranth.hdl import Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.arbiters import ReadArbiter, WriteArbiter
from edgemoe_hw.primitives.arithmetic import minimum, product, times, truncate
from edgemoe_hw.primitives.trees import pipelined_tree, tree_cycles, tree_maximum, tree_sum, two_stage_sum
from support.amaranth_bench import evaluate, stream_vectors


class Expressions(wiring.Component):
    """Every expression of ``primitives.arithmetic`` on two inputs."""

    a: In(5)
    b: In(7)
    s: In(signed(6))
    least: Out(8)
    product: Out(16)
    times: Out(16)
    low: Out(8)
    low_signed: Out(signed(8))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.least.eq(minimum(self.a, self.b)),
            self.product.eq(product(self.a, self.b)),
            self.times.eq(times(self.b, 44)),
            self.low.eq(truncate(self.b, 3)),
            self.low_signed.eq(truncate(self.s, 4)),
        ]
        return m


def test_expressions():
    dut = Expressions()

    async def testbench(ctx):
        for a in range(32):
            for b in range(0, 128, 5):
                s = b % 64 - 32
                for port, value in ((dut.a, a), (dut.b, b), (dut.s, s)):
                    ctx.set(port, value)
                assert (ctx.get(dut.least), ctx.get(dut.product), ctx.get(dut.times)) == (min(a, b), a * b, 44 * b)
                assert (ctx.get(dut.low), ctx.get(dut.low_signed)) == (b % 8, (s + 8) % 16 - 8)

    evaluate(dut, testbench)


def test_widths():
    a, b, s = Signal(5), Signal(7), Signal(signed(6))
    assert len(minimum(a, b)) == 5
    assert (truncate(b, 3).shape().width, truncate(b, 9).shape().width) == (3, 7)
    assert truncate(s, 4).shape() == signed(4) and isinstance(times(a, 0), Value)


class Tree(wiring.Component):
    """A pipelined reduction of ``count`` signed values."""

    def __init__(self, count, kind, fan_in):
        self.kind, self.fan_in = kind, fan_in
        super().__init__({"values": In(signed(8)).array(count), "result": Out(signed(16))})

    def elaborate(self, platform):
        m = Module()
        if self.kind == "two":
            result = two_stage_sum(m, list(self.values), "sum")
        else:
            combine = tree_sum if self.kind == "sum" else tree_maximum
            result = pipelined_tree(m, list(self.values), combine, self.fan_in, "tree")
        m.d.comb += self.result.eq(result)
        return m


@pytest.mark.parametrize("kind", ["sum", "maximum", "two"])
@pytest.mark.parametrize(("count", "fan_in"), [(1, 2), (2, 2), (5, 2), (8, 4), (16, 4), (13, 4), (3, 8)])
def test_trees(kind, count, fan_in):
    rng, dut = random.Random(count), Tree(count, kind, fan_in)
    vectors = [[rng.randint(-128, 127) for _ in range(count)] for _ in range(50)]
    vectors += [[value] * count for value in (-128, 127)]
    cycles = 2 if kind == "two" else tree_cycles(count, fan_in)

    def drive(ctx, vector):
        for port, value in zip(dut.values, vector, strict=True):
            ctx.set(port, value)

    def check(ctx, vector):
        assert ctx.get(dut.result) == (max(vector) if kind == "maximum" else sum(vector))

    if cycles:
        stream_vectors(dut, cycles, vectors, drive, check)
    else:
        assert count == 1 and len(tree_sum([dut.values[0]])) == 8


def test_read_arbiter():
    """The earlier reader gets the port; its data go to all."""
    rng, dut = random.Random(3), ReadArbiter(8, readers=3)

    async def testbench(ctx):
        for _ in range(200):
            valid, rows, word = [rng.random() < 0.5 for _ in range(3)], rng.sample(range(65536), 3), rng.randrange(256)
            for reader, is_valid, row in zip(dut.readers, valid, rows, strict=True):
                ctx.set(reader.valid, is_valid)
                ctx.set(reader.row, row)
            ctx.set(dut.memory.data, word)
            assert [ctx.get(reader.ready) for reader in dut.readers] == [not any(valid[:i]) for i in range(3)]
            assert [ctx.get(reader.data) for reader in dut.readers] == [word] * 3
            if any(valid):
                assert ctx.get(dut.memory.row) == rows[valid.index(True)]

    evaluate(dut, testbench)


def test_write_arbiter():
    rng, dut = random.Random(4), WriteArbiter(16, 2)

    async def testbench(ctx):
        for _ in range(200):
            writes = {}
            for name in ("urgent", "patient"):
                port, writes[name] = getattr(dut, name), (rng.randrange(65536), rng.randrange(4), rng.randrange(65536))
                ctx.set(port.valid, rng.random() < 0.5)
                for field, value in zip(("row", "mask", "data"), writes[name], strict=True):
                    ctx.set(getattr(port, field), value)
            urgent, patient = bool(ctx.get(dut.urgent.valid)), bool(ctx.get(dut.patient.valid))
            assert ctx.get(dut.patient.ready) == (not urgent) and ctx.get(dut.memory.valid) == (urgent or patient)
            if urgent or patient:
                found = tuple(ctx.get(getattr(dut.memory, field)) for field in ("row", "mask", "data"))
                assert found == writes["urgent" if urgent else "patient"]

    evaluate(dut, testbench)
