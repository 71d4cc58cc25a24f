"""cocotb test of ``OperandPath`` in ``UnitBench``: operands from their memories to finished tiles.

Run by test_units_cocotb.py. The bench answers the read ports as block RAM does, one cycle later.
"""

import random
from typing import Any

import cocotb
import numpy as np
from amaranth.lib import data

from edgemoe_hw.engines.matmul.records import RowScale, StepMeta, TileMeta
from support import golden
from support.cocotb_unit import Unit
from support.unit_bench import UNITS

K, N = UNITS.lanes_k, UNITS.lanes_n
ROWS = 512  # of every memory here


def pack(struct: type[data.Struct], values: dict[str, Any]) -> int:
    """A struct's bits."""
    word = 0
    for name, field in data.Layout.cast(struct):
        value = pack(TileMeta, values[name]) if name == "tile" else int(values[name])
        assert 0 <= value < 1 << field.width, name
        word |= value << field.offset
    return word


def noise() -> int:
    """A step that is none."""
    return random.getrandbits(data.Layout.cast(StepMeta).size) & ~1


class Memories:
    """Contents of the four memories, and a token's steps with what they give."""

    def __init__(self) -> None:
        self.rng = rng = np.random.default_rng(11)
        self.act = rng.integers(0, 256, (ROWS, K)).astype(np.uint8)
        self.act[self.act == 128] = 0
        self.weight = rng.integers(-127, 128, (ROWS, N, K)).astype(np.int8)
        self.score = rng.integers(-150, 150, (ROWS, K)) + rng.choice([-1800, 0, 1800], (ROWS, 1))
        self.maximum = rng.integers(-2047, 2048, 2048)

    def token(self, number: int) -> list[dict[str, Any]]:
        """One token's steps, tile by tile; a tile's last step has its ``result`` and the token's ``row``."""
        rng = self.rng
        k_steps, tiles, nibbles = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(2))
        source_row, weight_base = (int(row) for row in rng.integers(0, ROWS - 16, 2))
        keys, shift, source = int(rng.integers(1, k_steps * K + 1)), int(rng.integers(4)), int(rng.integers(2))
        common = {
            "source": source,
            "nibbles": nibbles,
            "keys": keys,
            "score_shift": shift,
            "maximum_row": number,
            "unsigned": int(source or rng.integers(2)),
            "softmax": int(source and rng.integers(4) > 0),
        }
        if source:
            x = self._probabilities(self.score[source_row : source_row + k_steps].ravel(), keys, shift, number)
        else:
            rows = self.act[source_row : source_row + k_steps].ravel()
            x = (rows if common["unsigned"] else rows.view(np.int8)).astype(int)
        row = golden.reciprocal(int(x.sum())) if common["softmax"] else None
        steps = []
        for tile in range(tiles):
            total = np.zeros(N, int)
            meta = {
                "first_tile": tile == 0,
                "last_of_command": rng.integers(2),
                "index": rng.integers(2048),
                "dst_offset": rng.integers(65536),
                "score": rng.integers(65536),
            }
            for step in range(k_steps):
                place = weight_base + (tile * (k_steps + 1 >> 1) + (step >> 1) if nibbles else tile * k_steps + step)
                weights = self.weight[place]
                if nibbles:
                    weights = weights >> 4 if step & 1 else weights << 4 >> 4
                total += weights.astype(int) @ x[step * K : (step + 1) * K]
                steps.append(
                    common
                    | {
                        "valid": 1,
                        "first": step == 0,
                        "last": step == k_steps - 1,
                        "first_tile": tile == 0,
                        "step": step,
                        "source_row": source_row + step,
                        "weight_row": place,
                        "tile": meta,
                        "row": row,
                    }
                )
            steps[-1]["result"] = total
        return steps

    def _probabilities(self, scores: np.ndarray, keys: int, shift: int, number: int) -> np.ndarray:
        largest = int(scores[:keys].max())
        self.maximum[number] = largest
        real = [golden.probability(int(score), largest, shift) for score in scores[:keys]]
        return np.array(real + [0] * (len(scores) - keys))


class Ports:
    """Answers the read ports one cycle late, and compares every finished tile."""

    def __init__(self, unit: Unit, memories: Memories) -> None:
        self.unit, self.memories = unit, memories
        self.rows = dict.fromkeys(("act", "weight", "score", "maximum"), 0)
        self.expected: list[dict[str, Any]] = []
        self.finished = 0
        self.announced = False  # the result is there in this cycle

    async def cycle(self, word: int) -> None:
        unit, memories, rows = self.unit, self.memories, self.rows
        if self.announced:
            self._compare(self.expected[self.finished])
            self.finished += 1
        self.announced = bool(unit.get("tilesvalid"))
        if self.announced:
            assert unit.get("tilesmeta") == pack(TileMeta, self.expected[self.finished]["tile"])
        scores = memories.score[rows["score"] % ROWS]
        unit.set(
            step=word,
            maximumdata=memories.maximum[rows["maximum"]],
            scoredata=sum((int(score) & 4095) << 12 * lane for lane, score in enumerate(scores)),
            actdata=int.from_bytes(memories.act[rows["act"] % ROWS].tobytes(), "little"),
            weightdata=int.from_bytes(memories.weight[rows["weight"] % ROWS].tobytes(), "little"),
        )
        self.rows = {name: unit.get(f"{name}row") for name in rows}
        await unit.tick()

    def _compare(self, tile: dict[str, Any]) -> None:
        word = self.unit.get("tilesresult")
        fields = [word >> 25 * lane & (1 << 25) - 1 for lane in range(N)]
        assert [field - (field >> 24 << 25) for field in fields] == tile["result"].tolist(), self.finished
        if tile["softmax"]:
            row, shift = tile["row"]
            assert self.unit.get("tilessoftmax") == pack(RowScale, {"row": row, "shift": shift}), self.finished


@cocotb.test()
async def operand_path(dut):
    """Activations and scores, int8 and int4 weights, in tiles of 1 to 5 steps; steps in any cycles."""
    unit, memories = Unit(dut, "operands"), Memories()
    await unit.reset()
    ports = Ports(unit, memories)
    for number in range(250):
        for step in memories.token(number):
            while random.random() < 0.2:
                await ports.cycle(noise())
            if step["last"]:
                ports.expected.append(step)
            await ports.cycle(pack(StepMeta, step))
    for _ in range(20):
        await ports.cycle(noise())
    assert ports.finished == len(ports.expected) > 250
    kinds = {(tile["source"], tile["unsigned"], tile["nibbles"], tile["softmax"]) for tile in ports.expected}
    assert len(kinds) == 8  # bytes or nibbles of: int8, uint8, scores with and without row factor
