"""cocotb test of ``OperandPath`` in ``UnitBench``: operands from their memories to finished tiles.

Run by test_units_cocotb.py. The bench answers the read ports as block RAM does.
"""

import random

import cocotb
from amaranth.lib import data

from edgemoe_hw.engines.matmul.records import StepMeta
from edgemoe_hw.spec.constants import accumulator_bits
from edgemoe_hw.spec.timing import operand_path as operand_path_cycles
from support.cocotb_unit import Unit
from support.operand_cases import READ_CYCLES, Memories, Step
from support.unit_bench import UNITS

BITS = accumulator_bits(UNITS.max_tokens)


def noise() -> int:
    """A step that is none."""
    return random.getrandbits(data.Layout.cast(StepMeta).size) & ~1


class Ports:
    """Answers the read ports as late as the memories do, and compares every finished tile."""

    def __init__(self, unit: Unit, memories: Memories) -> None:
        self.unit, self.memories = unit, memories
        self.rows = {name: [0] * cycles for name, cycles in READ_CYCLES.items()}  # asked for, the oldest first
        self.expected: list[Step] = []
        self.finished = 0
        self.announced = False  # the result is there in this cycle

    async def cycle(self, word: int) -> None:
        unit = self.unit
        if self.announced:
            self._compare(self.expected[self.finished])
            self.finished += 1
        self.announced = bool(unit.get("tilesvalid"))
        if self.announced:
            assert unit.get("tilesmeta") == self.expected[self.finished].meta
        replies = {f"{name}data": self.memories.reply(name, asked.pop(0)) for name, asked in self.rows.items()}
        unit.set(step=word, **replies)
        for name, asked in self.rows.items():
            asked.append(unit.get(f"{name}row"))
        await unit.tick()

    def _compare(self, tile: Step) -> None:
        word = self.unit.get("tilesresult")
        fields = [word >> BITS * lane & (1 << BITS) - 1 for lane in range(UNITS.lanes_n)]
        assert [field - (field >> BITS - 1 << BITS) for field in fields] == tile.result, self.finished
        if tile.scale is not None:
            assert self.unit.get("tilessoftmax") == tile.scale, self.finished


@cocotb.test()
async def operand_path(dut):
    """Activations and scores, int8 and int4 weights, in tiles of 1 to 5 steps; steps in any cycles."""
    unit, memories = Unit(dut, "operands"), Memories(UNITS, 11)
    await unit.reset()
    ports = Ports(unit, memories)
    for number in range(250):
        for step in memories.token(number):
            while random.random() < 0.2:
                await ports.cycle(noise())
            if step.result:
                ports.expected.append(step)
            await ports.cycle(step.word)
    for _ in range(operand_path_cycles(UNITS) + 2):
        await ports.cycle(noise())
    assert ports.finished == len(ports.expected) > 250
    names = ("source", "unsigned", "nibbles", "softmax")
    assert len({tuple(tile.fields[name] for name in names) for tile in ports.expected}) == 8  # all that there are
