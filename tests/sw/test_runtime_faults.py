"""What goes wrong on the RTL while frames stream: each fault is recovered from or reported, no other frame is lost."""

import dataclasses
import gc
import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgemoe
from edgemoe import FrameError
from edgemoe.bundle import Bundle, BundleError
from edgemoe.compiler import build_bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.executor import ProgramStopped
from edgemoe.runtime.platforms.sim import SimPlatform
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.isa import Base, Load, Store, decode_program
from edgemoe_hw.spec.regs import ErrorCode
from support.random_graphs import random_graph, small_model

WATCHDOG = 3000


class Machine:
    """A simulated accelerator of which single frames can be made to fail."""

    def __init__(self, bundle: Bundle, simulate, **options) -> None:
        self.bundle = bundle
        self.platform, self.simulation = simulate(bundle)
        self.driver = Driver(self.platform, bundle, watchdog=WATCHDOG, **options)
        self.accelerator = Accelerator(self.driver)

    def place(self, kind: type[Load | Store], task: str, target: int = 0) -> tuple[int, int]:
        """Eight bytes that the task's last command of this kind touches, in output slot ``target``."""
        program = self.bundle.task(task).program
        offset = [
            payload.offset
            for _, payload in decode_program(program)
            if isinstance(payload, kind) and payload.base == (Base.WEIGHTS if kind is Load else Base.OUTPUT)
        ][-1]
        buffer = self.driver.memory.outputs[target] if kind is Store else self.driver.memory.weights
        return buffer.physical_address + offset, buffer.physical_address + offset + 8

    def inject(self, monkeypatch: pytest.MonkeyPatch, kind: str, task: str, starts: set[int]) -> None:
        """Let these starts of a program meet the fault; the next start or reset ends it."""
        start, reset, count = self.driver.start, self.driver.reset, itertools.count()

        def faulty(name: str, source: int, target: int, first: int = 0) -> None:
            fails = next(count) in starts
            touching = Store if kind == "write_error" else Load
            self.simulation.model.inject(kind, self.place(touching, task, target) if fails else None)
            start(name, source, target, first)

        def repaired() -> None:
            self.simulation.model.inject(kind, None)
            reset()

        monkeypatch.setattr(self.driver, "start", faulty)
        monkeypatch.setattr(self.driver, "reset", repaired)


@pytest.fixture
def machine(runtime_bundle, simulate) -> Iterator[Machine]:
    machine = Machine(runtime_bundle, simulate, timeout=60)
    yield machine
    machine.accelerator.close()
    assert machine.simulation.buffers == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgemoe")]


FAULTS = {"read_error": ErrorCode.READ_BUS, "write_error": ErrorCode.WRITE_BUS, "hang": ErrorCode.WATCHDOG}


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_in_a_stream(machine, pictures, expected, monkeypatch, kind):
    """Reported with frame, code and command; the frames before and after it are right."""
    machine.inject(monkeypatch, kind, "depth", {3})
    frames = list(machine.accelerator.stream(pictures, "depth", on_error="report"))
    assert [frame.number for frame in frames] == list(range(8))
    for frame in frames:
        if frame.number == 3:
            assert isinstance(frame.error, ProgramStopped) and frame.error.code is FAULTS[kind]
            command = frame.error.command
            assert 0 < command < machine.bundle.task("depth").commands
            assert f"(task depth: {command} " in str(frame.error)
        else:
            np.testing.assert_array_equal(frame["depth"].raw, expected(pictures[frame.number], "depth"))


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_that_is_retried(runtime_bundle, simulate, pictures, expected, monkeypatch, kind):
    machine = Machine(runtime_bundle, simulate, retries=1, timeout=60)
    machine.inject(monkeypatch, kind, "depth", {2, 6})
    with machine.accelerator as accelerator:
        frames = list(accelerator.stream(pictures, "depth"))
        assert [frame["depth"].stats.attempts for frame in frames] == [1, 1, 2, 1, 1, 2, 1, 1]
        for frame, picture in zip(frames, pictures, strict=True):
            np.testing.assert_array_equal(frame["depth"].raw, expected(picture, "depth"))


def test_fault_that_is_raised(machine, pictures, expected, monkeypatch):
    """All frames before it have been delivered, and the accelerator goes on after it."""
    machine.inject(monkeypatch, "read_error", "edges", {5})  # of the third frame's second task
    numbers = []
    with pytest.raises(FrameError, match=r"frame 2: command \d+: READ_BUS") as caught:
        for frame in machine.accelerator.stream(pictures, ["depth", "edges"]):
            numbers.append(frame.number)
    assert numbers == [0, 1] and caught.value.frame == 2
    np.testing.assert_array_equal(machine.accelerator.run(pictures[0], "edges").raw, expected(pictures[0], "edges"))


def test_hang_without_a_watchdog(runtime_bundle, simulate, pictures, expected):
    """The host's own timeout says what has finished; memory that still does not answer is said at the next start."""
    platform, simulation = simulate(runtime_bundle)
    driver = Driver(platform, runtime_bundle, watchdog=0, timeout=0.002)
    begin = driver.memory.weights.physical_address
    with Accelerator(driver) as accelerator:
        simulation.model.inject("hang", (begin, begin + 64))
        with pytest.raises(
            DeviceError,
            match=r"did not end within 0.002 s; error code NONE; of its \d+ commands "
            r"these have finished: .*; the first that has not: command \d+ \(",
        ):
            accelerator.run(pictures[0], "depth")
        with pytest.raises(DeviceError, match="still busy 0.01 s after a soft reset: memory does not answer"):
            accelerator.run(pictures[0], "depth")
        simulation.model.inject("hang", None)
        driver.timeout = 60
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))


def test_wrong_overlay(runtime_bundle):
    """A bundle for another configuration is refused by what the hardware itself says it is."""
    other = dataclasses.replace(runtime_bundle.config, name="other", weight_depth=256)
    foreign = build_bundle(random_graph(small_model()), other)
    with pytest.raises(BundleError) as caught:
        edgemoe.open("sim", foreign, config=runtime_bundle.config, quiet=True)
    for part in (
        f"config other (hash {other.hash32:#010x})",
        f"has tiny (hash {runtime_bundle.config.hash32:#010x})",
        "edgemoe compile --config tiny",
    ):
        assert part in str(caught.value)


def test_wrong_program(runtime_bundle, pictures):
    """The RTL's own check, should a program for other hardware get there; not a matter of retrying."""
    task = runtime_bundle.task("depth")
    broken = dataclasses.replace(task, program=bytes([task.program[0] & 0xF0 | 15]) + task.program[1:])
    wrong = dataclasses.replace(runtime_bundle, tasks={**runtime_bundle.tasks, "depth": broken})
    with edgemoe.open("sim", wrong, quiet=True, retries=3) as accelerator:
        with pytest.raises(ProgramStopped, match=r"command 0: ILLEGAL_OPCODE.*\(task depth\)"):
            accelerator.run(pictures[0], "depth")
        accelerator.run(pictures[0], "edges")


def test_killed_in_the_middle(machine, pictures, expected):
    """A stream that is closed while a program runs; then a process that leaves one running to its successor."""
    stream = machine.accelerator.stream(itertools.cycle(pictures), "segmentation")
    next(stream)
    stream.close()
    for task in ("segmentation", "depth"):
        np.testing.assert_array_equal(machine.accelerator.run(pictures[1], task).raw, expected(pictures[1], task))
    machine.driver.start("segmentation", 0, 0)
    machine.simulation.model.run(500)
    assert machine.simulation.model.read_field("STATUS", "busy")
    machine.platform.lock.release()  # as the end of its process does
    successor = Driver(machine.platform, machine.bundle)
    assert not machine.simulation.model.read_field("STATUS", "busy")
    successor.pack(1, pictures[2])
    successor.execute("depth", 1, 1)
    np.testing.assert_array_equal(successor.unpack("depth", 1), expected(pictures[2], "depth"))
    successor.memory.free()


def test_closing_while_it_hangs(runtime_bundle, simulate, pictures, expected):
    """Closing a stream does not wait for the timeout, which is minutes of simulation away here."""
    platform, simulation = simulate(runtime_bundle)
    driver = Driver(platform, runtime_bundle, watchdog=0, timeout=1000)
    with Accelerator(driver) as accelerator:
        stream = accelerator.stream(itertools.cycle(pictures), "depth")
        next(stream)
        begin = driver.memory.weights.physical_address
        simulation.model.inject("hang", (begin, begin + runtime_bundle.data.size))
        stream.close()
        simulation.model.inject("hang", None)
        np.testing.assert_array_equal(accelerator.run(pictures[3], "depth").raw, expected(pictures[3], "depth"))


def test_memory_above_4_gib(runtime_bundle, pictures, expected):
    """As DDR_HIGH of a ZynqMP board: addresses of more than 32 bits get through to the RTL's masters."""
    platform = SimPlatform(runtime_bundle.config, dram_bytes=5 << 30, quiet=True)
    platform.allocate(4 << 30)  # pages that nobody touches cost nothing
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        assert all(buffer.physical_address >= 4 << 30 for buffer in accelerator.executor.memory.buffers)
        for task in accelerator.tasks:
            np.testing.assert_array_equal(accelerator.run(pictures[0], task).raw, expected(pictures[0], task))


@pytest.mark.parametrize("interrupt", [False, True])
def test_polling_and_interrupt(runtime_bundle, simulate, pictures, expected, interrupt):
    platform, _ = simulate(runtime_bundle)
    with edgemoe.open(platform, runtime_bundle, interrupt=interrupt, timeout=60) as accelerator:
        for task in accelerator.tasks:
            np.testing.assert_array_equal(accelerator.run(pictures[0], task).raw, expected(pictures[0], task))


def test_memory_that_is_short(runtime_bundle):
    with pytest.raises(DeviceError, match="DRAM of 65536 bytes has no [0-9]+ bytes left; open the device with"):
        edgemoe.open("sim", runtime_bundle, dram_bytes=65536, quiet=True)


def test_pages_are_used_again(runtime_bundle):
    platform = SimPlatform(runtime_bundle.config, dram_bytes=4 * 4096, quiet=True)
    first, second, third = (platform.allocate(size) for size in (5000, 1, 4096))
    assert [buffer.physical_address for buffer in (first, second, third)] == [0, 8192, 12288]
    first.free()
    first.free()
    assert [platform.allocate(size).physical_address for size in (4096, 100)] == [0, 4096]
    with pytest.raises(DeviceError, match="no 4096 bytes left"):
        platform.allocate(1)
    second.array[0] = 5  # nothing is seen before the flush, nor what the accelerator writes before the invalidate
    assert platform.model.dram[8192] == 0
    second.flush()
    assert platform.model.dram[8192] == 5
    platform.model.dram[8192] = 9
    assert second.array[0] == 5
    second.invalidate()
    assert second.array[0] == 9
    platform.close()
    platform.close()
    with pytest.raises(DeviceError, match="is closed"):
        platform.read(regs.find("ID").offset)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_at_a_time(runtime_bundle, pictures, expected, order):
    """Neither notices the other, nor who is closed first."""
    opened = [edgemoe.open("sim", runtime_bundle, quiet=True) for _ in order]
    for accelerator, picture in zip(opened, pictures, strict=False):
        np.testing.assert_array_equal(accelerator.run(picture, "depth").raw, expected(picture, "depth"))
    for index in order:
        opened[index].close()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_many_frames(runtime_bundle, simulate, rng, expected):
    """200 frames with random tasks: every bit is right, and neither buffers nor memory grow."""
    model = runtime_bundle.model
    platform, simulation = simulate(runtime_bundle)
    images = [rng.integers(0, 256, (model.image_height, model.image_width, 3), np.uint8) for _ in range(200)]
    tasks = [str(name) for name in rng.choice(list(runtime_bundle.tasks), len(images))]
    wanted = [expected(image, task) for image, task in zip(images, tasks, strict=True)]
    usage = {}
    with edgemoe.open(platform, runtime_bundle, timeout=60) as accelerator:
        buffers = simulation.buffers
        tracemalloc.start()
        for frame in accelerator.stream(images, iter(tasks)):
            assert list(frame.predictions) == [tasks[frame.number]]
            np.testing.assert_array_equal(frame[tasks[frame.number]].raw, wanted[frame.number])
            assert simulation.buffers == buffers == 1 + len(runtime_bundle.tasks) + 4
            if frame.number in (50, 199):
                gc.collect()
                usage[frame.number] = tracemalloc.get_traced_memory()[0], resident()
        tracemalloc.stop()
    assert frame.number == 199 and sum(a != b for a, b in itertools.pairwise(tasks)) > 100
    traced, process = (late - early for early, late in zip(usage[50], usage[199], strict=True))
    assert traced < 24 << 10 < 149 * images[0].nbytes  # less than one image a frame: latencies, 32 bytes each
    assert process < 2 << 20
    assert simulation.buffers == 0
