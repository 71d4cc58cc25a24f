"""One bundle holds all tasks; switching between them per frame costs not one byte: counted on the bus and in memory."""

from collections import Counter

import numpy as np
import pytest

from edgemoe.bundle import Bundle, Task
from edgemoe.compiler import build_bundle, compile_graph
from edgemoe.runtime.verify import Verifier, open_verified
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import Base, Load, decode_program
from edgemoe_models.config import TaskConfig
from support.random_graphs import random_graph, small_model
from support.reference import expect

CONFIG = PRESETS["tiny"]
TASKS = (
    TaskConfig("segmentation", "segmentation", channels=5, head_hidden=20, cells=2),
    TaskConfig("depth", "depth", channels=1, cells=2),
    TaskConfig("edges", "edges", channels=1, cells=4),
)
MODEL = small_model(depth=4, tasks=TASKS)
FRAMES = ("segmentation", "depth", "segmentation", "edges", "edges", "depth", "segmentation")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return build_bundle(random_graph(MODEL), CONFIG)


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.integers(0, 256, (MODEL.image_height, MODEL.image_width, 3)).astype(np.uint8)


def fetched(bundle: Bundle, task: Task, trace: dict) -> int:
    """Bytes that an inference must read: its program, and every LOAD of which the expert has tokens."""
    total = len(task.program)
    for header, payload in decode_program(task.program):
        if not isinstance(payload, Load):
            continue
        block = task.phases[header.phase].name.removesuffix(".moe")
        if not header.predicated or len(trace[f"{block}.queues"][header.expert]):
            total += payload.rows * bundle.config.row_bytes[payload.memory.name]
    return total


class Host:
    """Counts the bytes that are written into the accelerator's registers."""

    def __init__(self, verifier: Verifier) -> None:
        self.written = 0
        self.write = verifier.platform.write
        verifier.platform.write = self.counted

    def counted(self, offset: int, value: int) -> None:
        self.written += 4
        self.write(offset, value)


def test_bytes_of_alternating_tasks(bundle, image):
    """Each frame reads exactly what its own program needs, whatever ran before it; the host writes the image and
    the registers, nothing else."""
    registers = []
    written: dict[str, set[int]] = {}
    with open_verified(bundle, quiet=True) as verifier:
        host, model = Host(verifier), verifier.platform.model
        for task in FRAMES:
            expected = expect(bundle, image, task)
            before, host.written = model.dram.copy(), 0
            stats = (result := verifier.run(image, task)).stats
            np.testing.assert_array_equal(result.outputs, expected.outputs)
            assert stats["bytes_read"] == fetched(bundle, bundle.task(task), expected.trace)
            registers.append(host.written)
            written.setdefault(task, set()).add(stats["bytes_written"])
            changed = np.flatnonzero(model.dram != before)  # the last frame's image and output give way to this one's
            places = [(model.read_reg("BASE_OUTPUT"), max(info.output_bytes for info in bundle.tasks.values()))]
            if not registers[1:]:
                places.append((model.read_reg("BASE_INPUT"), bundle.input_bytes))
            assert np.any([(changed >= base) & (changed < base + size) for base, size in places], axis=0).all()
    assert len(set(registers)) == 1 and registers[0] < 64
    assert all(len(sizes) == 1 for sizes in written.values())


def test_nothing_is_written_again(bundle, image):
    """A byte that is changed behind the driver's back stays changed over a switch, so nobody reloads it: one in every
    64 bytes of what the next task does not read, and all of the other tasks' programs."""
    expected = expect(bundle, image, "depth").outputs
    with open_verified(bundle, quiet=True) as verifier:
        verifier.run(image, "segmentation")
        dram = verifier.platform.model.dram
        program = verifier.platform.model.read_reg("PROGRAM_ADDR")
        used = np.zeros(bundle.data.size, bool)
        for _, payload in decode_program(bundle.task("depth").program):
            if isinstance(payload, Load) and payload.base == Base.WEIGHTS:
                size = payload.rows * CONFIG.row_bytes[payload.memory.name]
                used[payload.offset : payload.offset + size] = True
        spare = np.flatnonzero(~used)[::64]
        assert len(spare) > 4  # gates and heads of the other tasks
        dram[spare] ^= 0xA5
        other = program - 8  # the end of the page of the program before
        dram[other] ^= 0xA5
        snapshot = dram[spare].copy(), dram[other]
        np.testing.assert_array_equal(verifier.run(image, "depth").outputs, expected)
        np.testing.assert_array_equal(dram[spare], snapshot[0])
        assert dram[other] == snapshot[1]


def test_programs_differ_in_gates_and_heads_only():
    """The tasks load the same bytes of the same memory image, except for their own gates and heads."""
    compiled = compile_graph(random_graph(MODEL), CONFIG)
    loads = {
        name: Counter(
            (c.payload.memory, c.payload.base, c.payload.offset, c.payload.rows, c.label)
            for c in program.commands
            if isinstance(c.payload, Load)
        )
        for name, program in compiled.programs.items()
    }
    shared = set.intersection(*(set(counts) for counts in loads.values()))
    assert len(shared) > 50
    for task, counts in loads.items():
        private = [label for *_, label in set(counts) - shared]
        assert private and all(f".gate.{task}" in label or f"heads.{task}" in label for label in private), private
        assert all(count == 1 for count in counts.values())  # and none of them twice


def test_one_task_more_costs_its_gates_and_head_only():
    sizes = []
    for count in (1, 2, 3):
        model = small_model(depth=4, tasks=TASKS[:count])
        sizes.append(len(compile_graph(random_graph(model), CONFIG).data))
    graph = random_graph(MODEL)
    for task, grown in zip(("depth", "edges"), np.diff(sizes), strict=True):
        own = [linear for name, linear, _ in graph.linears() if f".gate.{task}" in name or f"heads.{task}" in name]
        assert len(own) == 3  # two blocks' gates and the head
        padded = sum(
            -(-linear.weight.shape[0] // CONFIG.lanes_n) * CONFIG.lanes_n * (linear.weight.shape[1] + 8 + 8)
            for linear in own
        )
        assert 0 < grown <= padded + 64 * 2 * len(own)
