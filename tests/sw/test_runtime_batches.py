"""Streams by programs of several tasks or images: what runs together, what fails alone, and never a wait for more."""

import itertools
import threading

import numpy as np
import pytest

import edgemoe
from edgemoe import DeviceError, FrameError
from edgemoe.bundle import Joined
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.reference import ReferenceExecutor
from support.recorder import Recorder

SECONDS = 10  # for what must happen
ALL = ("segmentation", "depth", "normals", "edges", "scene")


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgemoe")] == []


def batch(images, task="depth"):
    return Joined((task,), images)


class Held(Recorder):
    """Its n-th program ends when ``may_end(n)`` has been waited for; ``begun[n]`` is set when it has begun."""

    def __init__(self, bundle, depth=2, may_end=lambda number: None):
        super().__init__(bundle, depth, self._told)
        self.begun, self.has_packed = ([threading.Event() for _ in range(50)] for _ in range(2))
        self._may_end = may_end

    def _told(self, step, frame, slot):
        if step == "execute":
            self.begun[frame].set()
            self._may_end(frame)
        if step == "pack done":
            self.has_packed[frame].set()


def wait(event):
    assert event.wait(SECONDS)


def programs(executor):
    return [program for program, _, _ in executor.programs]


def test_what_has_arrived_meanwhile_runs_together(joint_bundle, pictures):
    """The first frame runs at once; while it does, four arrive, and while those do, three."""
    arrived = {0: 4, 1: 7, 2: 7}  # number of a program: the last frame that is packed before it ends
    executor = Held(joint_bundle, may_end=lambda number: wait(executor.has_packed[arrived[number]]))

    def source():
        yield pictures[0]
        wait(executor.begun[0])
        yield from pictures[1:]

    with Accelerator(executor) as accelerator:
        stream = accelerator.stream(source(), "depth")
        frames = list(stream)
    assert programs(executor) == ["depth", batch(4), batch(3)]
    assert executor.packed == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (0, 0), (0, 1), (0, 2)]
    assert [frame.number for frame in frames] == list(range(8))
    assert [frame["depth"].stats.shared for frame in frames] == [1, 4, 4, 4, 4, 3, 3, 3]
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    stats = stream.stats
    assert stats.frames == stats.inferences == 8 and stats.device_seconds == pytest.approx(0.003 / 8)


def test_a_lone_frame_does_not_wait(joint_bundle, pictures):
    """Each arrives when the one before has been taken by the consumer: each runs by itself, at once."""
    seen, count = [threading.Event() for _ in pictures], itertools.count()

    def source():
        for number, picture in enumerate(pictures):
            if number:
                wait(seen[number - 1])
            yield picture

    executor = Recorder(joint_bundle)
    with Accelerator(executor) as accelerator:
        for frame in accelerator.stream(source(), "depth"):
            assert frame.number == next(count)
            seen[frame.number].set()
    assert programs(executor) == ["depth"] * 8


def test_a_batch_that_is_taken_meanwhile(joint_bundle, pictures):
    """A frame that was packed into a waiting slot a moment too late gets a slot of its own."""
    release = threading.Event()

    class Late(Held):
        def pack(self, source, image, place=0):
            if (source, place) == (1, 1) and len(self.packed) == 2:
                release.set()
                wait(self.begun[1])  # now the device has the slot
            super().pack(source, image, place)

    executor = Late(joint_bundle, may_end=lambda number: number or wait(release))

    def source():
        yield pictures[0]
        wait(executor.begun[0])
        yield from pictures[1:3]

    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(source(), "depth"))
    assert executor.packed == [(0, 0), (1, 0), (1, 1), (0, 0)]
    assert executor.programs == [("depth", 0, 0), ("depth", 1, 0), ("depth", 0, 0)]
    assert [frame.number for frame in frames] == [0, 1, 2]


def held_source(executor, pictures):
    """The first picture, and the others when the device has that."""
    yield pictures[0]
    wait(executor.begun[0])
    yield from pictures[1:]


def test_a_batch_that_fails_is_run_one_by_one(joint_bundle, pictures):
    """What fails together may be one frame's fault: only that has failed in the end, and attempts tell the tale."""

    class Failing(Held):
        def execute(self, program, source, target, cancel=None, *, first=0):
            measured = super().execute(program, source, target, cancel, first=first)
            if program == batch(4) or (program, first) == ("depth", 2):
                raise DeviceError("no answer")
            return measured

    executor = Failing(joint_bundle, may_end=lambda number: number or wait(executor.has_packed[4]))
    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(held_source(executor, pictures[:5]), "depth", on_error="report"))
        assert executor.programs == [
            ("depth", 0, 0),
            (batch(4), 1, 0),
            ("depth", 1, 0),
            ("depth", 1, 1),
            ("depth", 1, 2),
            ("depth", 1, 3),
        ]
        assert [str(frame.error or "") for frame in frames] == ["", "", "", "no answer", ""]
        good = [frame["depth"].stats for frame in frames if not frame.error]
        assert [(stats.attempts, stats.shared) for stats in good] == [(1, 1), (2, 1), (2, 1), (2, 1)]
    executor = Failing(joint_bundle, may_end=lambda number: number or wait(executor.has_packed[4]))
    with Accelerator(executor) as accelerator:
        numbers = []
        with pytest.raises(FrameError, match="frame 3: no answer"):
            for frame in accelerator.stream(held_source(executor, pictures[:5]), "depth"):
                numbers.append(frame.number)
        assert numbers == [0, 1, 2]


def test_a_frame_that_cannot_be_read_fails_alone(joint_bundle, pictures):
    """Also in the middle of a batch: order and neighbours stay."""
    executor = Held(joint_bundle, may_end=lambda number: number or wait(executor.has_packed[3]))
    given = [*pictures[:2], np.zeros((3, 3)), *pictures[2:4]]
    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(held_source(executor, given), "depth", on_error="report"))
    assert programs(executor) == ["depth", batch(3)]
    assert [frame.number for frame in frames if frame.error] == [2]
    assert [frame.number for frame in frames] == list(range(5))
    assert [frame["depth"].stats.shared for frame in frames if not frame.error] == [1, 3, 3, 3]


def test_packing_that_fails_in_a_batch(joint_bundle, pictures):
    class Failing(Held):
        def pack(self, source, image, place=0):
            if len(self.packed) == 2:
                self.packed.append("failed")
                raise SystemExit("no room")
            super().pack(source, image, place)

    executor = Failing(joint_bundle, may_end=lambda number: number or wait(executor.has_packed[2]))
    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(held_source(executor, pictures[:4]), "depth", on_error="report"))
    assert [str(frame.error or "") for frame in frames] == ["", "", "no room", ""]
    assert executor.packed == [(0, 0), (1, 0), "failed", (1, 1)] and programs(executor) == ["depth", batch(2)]


def test_many_failures_do_not_pile_up(joint_bundle, pictures):
    """Frames without an image are counted too: an endless source of them waits for the consumer like any other."""
    asked = []

    def endless():
        for number in itertools.count():
            asked.append(number)
            yield np.zeros((3, 3))

    with Accelerator(Recorder(joint_bundle)) as accelerator:
        stream = accelerator.stream(endless(), "depth", on_error="report")
        assert [next(stream).number for _ in range(20)] == list(range(20))
        stream.close()
    assert len(asked) < 60


def test_frames_of_other_tasks(joint_bundle, pictures):
    """Only frames of the same tasks run together; where no program is worth it, none do."""
    tasks = ["depth", "depth", "depth", "scene", "scene", "edges", "edges", ["depth", "edges"]]
    executor = Held(joint_bundle, depth=4, may_end=lambda number: number or wait(executor.has_packed[5]))
    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(held_source(executor, pictures), iter(tasks)))
    assert programs(executor)[:4] == ["depth", batch(2), batch(2, "scene"), "edges"]
    assert programs(executor)[4:] == ["edges", "depth", "edges"]
    assert [tuple(frame.predictions) for frame in frames] == [
        (names,) if isinstance(names, str) else tuple(names) for names in tasks
    ]


def test_two_tasks_and_batches(joint_bundle, pictures, expected):
    """A batch of each task, and every frame gets both."""

    class Both(ReferenceExecutor):
        def __init__(self, bundle):
            super().__init__(bundle)
            self.begun, self.packed, self.programs = threading.Event(), threading.Event(), []

        def pack(self, source, image, place=0):
            super().pack(source, image, place)
            if (source, place) == (1, 2):
                self.packed.set()

        def execute(self, program, source, target, cancel=None, *, first=0):
            self.programs.append(program)
            self.begun.set()
            wait(self.packed)
            return super().execute(program, source, target, cancel, first=first)

    executor = Both(joint_bundle)

    def source():
        yield pictures[0]
        wait(executor.begun)
        yield from pictures[1:4]

    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(source(), ["scene", "depth"]))
    assert sorted(executor.programs[:2], key=str) == ["depth", "scene"]
    assert sorted(executor.programs[2:], key=str) == [batch(3), batch(3, "scene")]
    for frame, picture in zip(frames, pictures, strict=False):
        assert tuple(frame.predictions) == ("scene", "depth")
        for task, prediction in frame.predictions.items():
            np.testing.assert_array_equal(prediction.raw, expected(picture, task))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_all_tasks_of_each_frame(joint_bundle, pictures, expected, depth):
    with edgemoe.open("reference", joint_bundle, depth=depth) as accelerator:
        stream = accelerator.stream(pictures)
        frames = list(stream)
        assert stream.stats.inferences == 5 * 8
    for frame, picture in zip(frames, pictures, strict=True):
        assert tuple(frame.predictions) == ALL and {each.stats.shared for each in frame.predictions.values()} == {5}
        for task, prediction in frame.predictions.items():
            np.testing.assert_array_equal(prediction.raw, expected(picture, task))


def test_a_joint_program_that_fails(joint_bundle, pictures):
    """It is the frame's error, as any task's is; the other frames go on."""

    class Failing(Recorder):
        def execute(self, program, source, target, cancel=None, *, first=0):
            measured = super().execute(program, source, target, cancel, first=first)
            if len(self.programs) == 2:
                raise DeviceError("no answer")
            return measured

    executor = Failing(joint_bundle)
    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(pictures[:4], on_error="report"))
    assert [frame.number for frame in frames if frame.error] == [1] and not frames[1].predictions
    assert programs(executor) == [Joined(ALL)] * 4


@pytest.mark.parametrize("device", ["reference", "sim"])
def test_a_fast_source_gets_the_same_bits(device, joint_bundle, pictures, expected):
    """However frames come to lie together."""
    with edgemoe.open(device, joint_bundle) as accelerator:
        frames = list(accelerator.stream(pictures, "scene"))
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame["scene"].raw, expected(picture, "scene"))
    assert any(frame["scene"].stats.shared > 1 for frame in frames)


def test_unpacking_that_fails_for_one(joint_bundle, pictures):
    """The other outputs of the program are still read, and no slot is lost."""
    executor = Held(joint_bundle, may_end=lambda number: number or wait(executor.has_packed[4]))
    unpack = executor.unpack

    def failing(program, target, sequence=0):
        if (program, sequence) == (batch(4), 1):
            raise DeviceError("it is gone")
        return unpack(program, target, sequence)

    executor.unpack = failing
    with Accelerator(executor) as accelerator:
        frames = list(accelerator.stream(held_source(executor, pictures), "depth", on_error="report"))
    assert [frame.number for frame in frames if frame.error] == [2] and len(frames) == 8


def test_closing_while_frames_wait(joint_bundle, pictures):
    release = threading.Event()
    executor = Held(joint_bundle, may_end=lambda number: number or wait(release))
    accelerator = Accelerator(executor)
    stream = accelerator.stream(held_source(executor, pictures), "depth")
    wait(executor.has_packed[4])
    closer = threading.Thread(target=stream.close)
    closer.start()
    release.set()
    closer.join(SECONDS)
    assert not closer.is_alive() and list(stream) == []
    accelerator.close()
    assert executor.closed == 1
