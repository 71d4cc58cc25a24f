"""What a stream promises besides its results: stages that overlap, bounded queues, slots in turn, a clean end."""

import gc
import itertools
import threading
import time

import numpy as np
import pytest

import edgemoe
from edgemoe import DeviceError, FrameError
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe.runtime.statistics import Meter
from edgemoe_hw.spec import regs
from support.recorder import Recorder

SECONDS = 10  # for what must happen; a stage that does not overlap fails after it


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgemoe")] == []


def test_stages_overlap(runtime_bundle, pictures):
    """Frame 2 is packed and frame 0 unpacked while the device has frame 1: each waits until the others have begun."""
    begun = {("pack", 2): threading.Event(), ("execute", 1): threading.Event(), ("unpack", 0): threading.Event()}

    def hook(step, frame, slot):
        if (step, frame) in begun:
            begun[step, frame].set()
            for event in begun.values():
                assert event.wait(SECONDS), f"{step} of frame {frame} is alone"

    with Accelerator(Recorder(runtime_bundle, 2, hook)) as accelerator:
        assert len(list(accelerator.stream(pictures, "depth"))) == 8


def test_depth_1_does_not_overlap(runtime_bundle, pictures):
    """One input slot: the test above would notice."""
    running = set()

    def hook(step, frame, slot):
        if step in ("pack", "execute"):
            running.add(step)
            assert running == {step}
        running.discard(step.removesuffix(" done") if step.endswith("done") else None)

    with Accelerator(Recorder(runtime_bundle, 1, hook)) as accelerator:
        assert len(list(accelerator.stream(pictures, "depth"))) == 8


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_slots_are_taken_in_turn(runtime_bundle, pictures, depth):
    """No slot is written while something else may still read it, and all of them are used."""
    inputs, outputs, used, lock = {}, {}, [], threading.Lock()

    def hook(step, frame, slot):
        if step in ("execute", "unpack"):
            time.sleep(0.005)  # time enough for somebody to take the slot
        with lock:
            if step == "pack":
                assert slot not in inputs, f"input {slot} of frame {inputs[slot]} is overwritten"
                inputs[slot] = frame
            elif step == "execute":
                assert inputs[slot[0]] == frame and slot[1] not in outputs
                outputs[slot[1]] = frame
                used.append(slot)
            elif step == "execute done":
                del inputs[slot[0]]
            elif step == "unpack done":
                assert outputs.pop(slot) == frame

    with Accelerator(Recorder(runtime_bundle, depth, hook)) as accelerator:
        list(accelerator.stream(list(pictures) * 3, "depth"))
    assert {source for source, _ in used} == {target for _, target in used} == set(range(depth))
    assert all(first != second for (first, _), (second, _) in itertools.pairwise(used)) or depth == 1


def test_buffers_are_taken_in_turn(runtime_bundle, pictures):
    """The same at the registers: ping-pong between two input and two output buffers."""
    platform = NullPlatform(runtime_bundle.config)
    written, write = {"BASE_INPUT": [], "BASE_OUTPUT": []}, platform.write
    names = {regs.find(name).offset: name for name in written}

    def recorded(offset, value):
        if offset in names:
            written[names[offset]].append(value)
        write(offset, value)

    platform.write = recorded
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        *_, input0, input1, output0, output1 = [buffer.physical_address for buffer in platform.buffers]
        list(accelerator.stream(pictures, "depth"))
    assert written["BASE_INPUT"] == [input0, input1] * 4
    assert set(written["BASE_OUTPUT"]) == {output0, output1}


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_queues_are_bounded(runtime_bundle, pictures, depth):
    """A consumer that takes nothing stops the source after a few frames, whose number follows from the depth."""
    asked, most = [], 1 + depth + 1 + depth + depth  # consumer's, ready, results' hand, computed, input slots

    def endless():
        for number in itertools.count():
            asked.append(number)
            yield pictures[number % 8]

    with Accelerator(Recorder(runtime_bundle, depth)) as accelerator:
        next(stream := accelerator.stream(endless(), "depth"))
        before = -1
        while before < len(asked) <= most + 1:  # and one that is asked for
            before = len(asked)
            time.sleep(0.2)
        stream.close()
        assert depth < len(asked) <= most + 1


def test_latency_and_throughput(runtime_bundle, pictures):
    """Latency counts from a frame's arrival, not from when the source was asked; the rest is a frame's mean."""

    def source():
        for picture in pictures[:4]:
            time.sleep(0.2)
            yield picture

    def hook(step, frame, slot):
        if step == "execute":
            time.sleep(0.05)

    with Accelerator(Recorder(runtime_bundle, 2, hook)) as accelerator:
        stream = accelerator.stream(source(), "depth")
        frames = list(stream)
    assert all(0.05 <= frame.latency_s < 0.2 for frame in frames), [frame.latency_s for frame in frames]
    stats = stream.stats
    assert stats.seconds >= 4 * 0.2 and stats.fps == pytest.approx(4 / stats.seconds)
    ordered = sorted(frame.latency_s for frame in frames)
    assert (stats.latency_p50, stats.latency_max) == pytest.approx(((ordered[1] + ordered[2]) / 2, ordered[3]))
    assert stats.device_seconds == pytest.approx(0.001) and stats.device_share == pytest.approx(0.004 / stats.seconds)
    text = str(stats)
    assert "4 frames, 4 inferences, 0 failed" in text and "power unavailable" in text


@pytest.mark.parametrize("step", ["pack", "execute", "unpack"])
def test_a_step_that_exits(runtime_bundle, pictures, step):
    """Even SystemExit is the frame's error: a thread that ended silently would leave the consumer waiting."""

    def hook(name, frame, slot):
        if (name, frame) == (step, 2):
            raise SystemExit(f"no {step}")

    with Accelerator(Recorder(runtime_bundle, 2, hook)) as accelerator:
        frames = list(accelerator.stream(pictures, "depth", on_error="report"))
        assert [frame.number for frame in frames if frame.error] == [2] and len(frames) == 8
    with Accelerator(Recorder(runtime_bundle, 2, hook)) as accelerator:
        numbers = []
        with pytest.raises(FrameError, match=f"frame 2: no {step}"):
            for frame in accelerator.stream(pictures, "depth"):
                numbers.append(frame.number)
        assert numbers == [0, 1]
        accelerator.run(pictures[0], "depth")


def stream_threads() -> list[threading.Thread]:
    """The threads of all streams that run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("edgemoe")]


def test_a_thread_that_breaks(runtime_bundle, pictures, monkeypatch):
    """What no frame is to blame for is raised too, and nothing hangs."""
    with Accelerator(Recorder(runtime_bundle)) as accelerator:
        stream = accelerator.stream(itertools.cycle(pictures), "depth")
        next(stream)

        def broken(*_):
            raise ArithmeticError("no clock")

        monkeypatch.setattr(Meter, "add", broken)
        with pytest.raises(DeviceError, match="the stream broke off: ArithmeticError: no clock"):
            for _ in stream:
                pass
        assert accelerator.run(pictures[0], "depth").task == "depth"


def test_close_that_is_interrupted(runtime_bundle, pictures, monkeypatch):
    """Ctrl-C while close waits for the threads: closing again finishes it, and only then the executor is freed."""
    release, executor = threading.Event(), Recorder(runtime_bundle)
    executor.hook = lambda step, frame, slot: (step, frame) == ("execute", 1) and release.wait(SECONDS)
    accelerator = Accelerator(executor)
    stream = accelerator.stream(pictures, "depth")
    next(stream)
    join, calls = threading.Thread.join, []

    def interrupted(thread, timeout=None):
        if not calls:
            calls.append(thread)
            raise KeyboardInterrupt
        release.set()
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.close()
    with pytest.raises(DeviceError, match="a stream is using"):
        accelerator.run(pictures[0], "depth")
    accelerator.close()
    assert executor.closed == 1 and not stream_threads()


def test_close_in_two_threads(runtime_bundle, pictures):
    """The executor is freed after the stream's threads have ended, whoever closes first."""
    release, executor = threading.Event(), Recorder(runtime_bundle)
    executor.hook = lambda step, frame, slot: (step, frame) == ("execute", 1) and release.wait(SECONDS)
    accelerator = Accelerator(executor)
    stream = accelerator.stream(pictures, "depth")
    next(stream)
    closers = [threading.Thread(target=close) for close in (stream.close, accelerator.close)]
    for closer in closers:
        closer.start()
        time.sleep(0.1)
    assert executor.closed == 0 and all(closer.is_alive() for closer in closers)
    release.set()
    for closer in closers:
        closer.join(SECONDS)
    assert executor.closed == 1 and list(stream) == []
    with pytest.raises(DeviceError, match="is closed"):
        accelerator.stream(pictures, "depth")


def test_dropped_in_its_own_thread(runtime_bundle, pictures):
    """The garbage collector may find a stream while one of the stream's threads runs it."""
    cell, ended = [], threading.Event()

    def hook(step, frame, slot):
        if (step, frame) == ("unpack", 3):
            ended.wait(SECONDS)
            cell.clear()  # the last reference
            gc.collect()

    accelerator = Accelerator(Recorder(runtime_bundle, 2, hook))
    cell.append(accelerator.stream(itertools.cycle(pictures), "depth"))
    threads = stream_threads()
    next(cell[0])
    ended.set()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    end = time.monotonic() + SECONDS
    while any(thread.name == "edgemoe close" for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    assert accelerator.run(pictures[0], "depth").task == "depth"
    accelerator.close()


def test_source_that_closes_its_stream(runtime_bundle, pictures):
    opened, is_open = [], threading.Event()

    def source():
        yield from pictures[:2]
        is_open.wait(SECONDS)
        opened[0].close()
        yield pictures[2]

    with Accelerator(Recorder(runtime_bundle)) as accelerator:
        opened.append(accelerator.stream(source(), "depth"))
        is_open.set()
        assert [frame.number for frame in opened[0]] in ([], [0], [0, 1])
        accelerator.run(pictures[0], "depth")


def test_tasks_that_fail(runtime_bundle, pictures):
    """A function may go on; a generator has ended."""

    def number_1_fails(number):
        if number == 1:
            raise LookupError("no plan")
        return "depth"

    def generator():
        yield "depth"
        raise LookupError("no plan")

    with Accelerator(Recorder(runtime_bundle)) as accelerator:
        frames = list(accelerator.stream(pictures[:4], number_1_fails, on_error="report"))
        assert [frame.number for frame in frames if frame.error] == [1] and len(frames) == 4
        frames = list(accelerator.stream(pictures[:4], generator(), on_error="report"))
        assert [str(frame.error or "") for frame in frames] == [
            "",
            "no plan",
            "there are no tasks for it: they ended before the frames",
        ]
        with pytest.raises(FrameError, match="frame 1: no plan") as caught:
            list(accelerator.stream(pictures[:4], generator()))
        assert isinstance(caught.value.__cause__, LookupError)
        with pytest.raises(ValueError, match="tasks must be a name, a list, a function or an iterable, not 3"):
            accelerator.stream(pictures, 3)
        for entry in (3, [["depth"]], None):
            with pytest.raises(FrameError, match="frame 0: a frame's tasks must be a name or a list of names, not"):
                list(accelerator.stream(pictures, iter([entry])))
        for entry in (3, [["depth"]], None, []):
            with pytest.raises(ValueError, match=r"task must be one of segmentation, .*, or a list of them, not "):
                accelerator.run(pictures[0], entry)


def test_files_of_a_folder_that_cannot_be_read(runtime_bundle, pictures, tmp_path):
    """Nothing of the others is lost."""
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", pictures[number])
    files = [tmp_path / f"{number}.npy" for number in range(4)]
    files[1].write_bytes(b"junk")
    (tmp_path / "a.png").write_bytes(b"junk")
    (tmp_path / "folder.png").mkdir()
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        frames = list(accelerator.stream(files, "depth", on_error="report"))
        assert [frame.number for frame in frames if frame.error] == [1] and len(frames) == 4
        assert "1.npy: not a readable array" in str(frames[1].error) and frames[1].image is None
        np.testing.assert_array_equal(frames[3].image, pictures[3])
        frames = list(accelerator.stream(tmp_path, "depth", on_error="report"))
        assert ["a.png: not a readable image" in str(frame.error) for frame in frames] == [True]


def test_empty_source(runtime_bundle, pictures):
    with Accelerator(Recorder(runtime_bundle)) as accelerator:
        stream = accelerator.stream(pictures[:0], "depth")
        assert list(stream) == [] and stream.stats.frames == 0
        assert str(stream.stats).startswith("0 frames, 0 inferences")
