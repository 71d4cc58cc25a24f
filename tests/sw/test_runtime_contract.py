"""What every device promises: the same bits, the same refusals, streams in order that end cleanly."""

import _thread
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image

import edgemoe
from edgemoe import DeviceError, FrameError
from edgemoe.bundle import BundleError
from edgemoe_models.integer.postprocess import decode_output, postprocess
from support.reference import expect

FIELDS = {
    "segmentation": "labels",
    "depth": "metres",
    "normals": "vectors",
    "edges": "mask",
    "classification": "scores",
}


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgemoe")] == []


def test_every_task_equals_the_reference(accelerator, pictures, expected, runtime_bundle):
    graph = runtime_bundle.graph()
    blocks = [block for block in range(runtime_bundle.model.depth) if runtime_bundle.model.is_moe(block)]
    for task in accelerator.tasks:
        found = accelerator.run(pictures[0], task)
        np.testing.assert_array_equal(found.raw, expected(pictures[0], task))
        assert found.raw.dtype == np.int16 and found.task == task
        decoded = decode_output(graph, task, found.raw)
        np.testing.assert_array_equal(found.decoded, decoded)
        wanted = postprocess(runtime_bundle.model, task, decoded)
        assert type(found).__name__.lower() == found.kind == runtime_bundle.model.task(task).kind
        np.testing.assert_array_equal(getattr(found, FIELDS[found.kind]), wanted)
        assert found.values.dtype == wanted.dtype and found.values.shape == wanted.shape
        assert sum(found.stats.expert_tokens) == 13 * 2 and len(found.stats.expert_tokens) == 5
        trace = expect(runtime_bundle, pictures[0], task).trace
        assert found.stats.expert_loads == {
            block: tuple(len(queue) for queue in trace[f"blocks.{block}.queues"]) for block in blocks
        }
        assert found.stats.expert_loads[blocks[-1]] == found.stats.expert_tokens
        assert found.stats.device_seconds > 0 and 0 < found.stats.host_seconds < 1
    assert found.label == found.scores.argmax() and found.scores.sum() == pytest.approx(1)
    probability = accelerator.run(pictures[0], "edges").probability
    assert probability.shape == (3, 4) and ((0 <= probability) & (probability <= 1)).all()


def test_image_files_and_sizes(open_device, runtime_bundle, pictures, expected, tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(pictures[0]).save(path)
    large = np.repeat(np.repeat(pictures[0], 2, 0), 2, 1)
    with open_device(runtime_bundle) as accelerator:
        for image in (path, str(path)):
            np.testing.assert_array_equal(accelerator.run(image, "depth").raw, expected(pictures[0], "depth"))
        with pytest.raises(ValueError, match="32x24 pixels, but the model takes 16x12.*resize='crop' or 'squeeze'"):
            accelerator.run(large, "depth")
    with open_device(runtime_bundle, resize="squeeze") as accelerator:
        small = np.asarray(Image.fromarray(large).resize((16, 12), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(accelerator.run(large, "depth").raw, expected(small, "depth"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((12, 16, 3), np.float32), r"must be uint8 \[12, 16, 3\].*not float32 \[12, 16, 3\]"),
        (np.zeros((12, 16), np.uint8), r"not uint8 \[12, 16\]"),
        ([[1]], "not list"),
        ("none.png", "none.png: there is no such file"),
    ],
)
def test_wrong_image(accelerator, image, message):
    with pytest.raises(ValueError, match=message):
        accelerator.run(image, "depth")


def test_wrong_task(accelerator, pictures):
    for tasks in ("smell", ["depth", "smell"]):
        with pytest.raises(BundleError, match="no task 'smell'; it has segmentation, depth, normals, edges, scene"):
            accelerator.stream(pictures, tasks)
    with pytest.raises(BundleError, match="no task 'smell'"):
        accelerator.run(pictures[0], "smell")
    with pytest.raises(ValueError, match="at least one task"):
        accelerator.stream(pictures, [])
    accelerator.run(pictures[0], "depth")


def test_wrong_bundle(open_device, runtime_bundle, tmp_path):
    with pytest.raises(BundleError, match="none.emoe: there is no such file"):
        open_device(tmp_path / "none.emoe")
    path = tmp_path / "good.emoe"
    runtime_bundle.save(path)
    open_device(path).close()
    path.write_bytes(path.read_bytes().replace(b'isa_version\\\\\\": ', b'isa_version\\\\\\":9'))
    with pytest.raises(BundleError, match="ISA version 9[0-9]+, but this edgemoe has"):
        open_device(path)
    runtime_bundle.save(path)
    content = path.read_bytes()
    for damaged in (b"", content[:5], content[:-100], content[:-100] + bytes(100)):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="good.emoe: .*(corrupt or truncated|damaged)"):
            open_device(path)


def test_wrong_options(open_device, runtime_bundle):
    with pytest.raises(ValueError, match="has no option colour; it has resize, notes, depth"):
        open_device(runtime_bundle, colour="red")
    with pytest.raises(ValueError, match="depth must be at least 1"):
        open_device(runtime_bundle, depth=0)


def test_wrong_device(runtime_bundle):
    with pytest.raises(ValueError, match="device must be one of reference, sim, pynq, serial, remote, not 'gpu'"):
        edgemoe.open("gpu", runtime_bundle)
    with pytest.raises(ValueError, match=r"device must be a name \(.*, remote\) or a Platform \(.*\), not None"):
        edgemoe.open(None, runtime_bundle)


def test_closing_twice(open_device, runtime_bundle, pictures):
    accelerator = open_device(runtime_bundle)
    accelerator.close()
    accelerator.close()
    for use in (accelerator.run, accelerator.stream):
        with pytest.raises(DeviceError, match="is closed; open it again"):
            use(pictures[0], "depth")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_stream_keeps_the_order(open_device, runtime_bundle, pictures, expected, depth):
    with open_device(runtime_bundle, depth=depth) as accelerator:
        stream = accelerator.stream(pictures, ["scene", "depth"])
        frames = list(stream)
        assert [frame.number for frame in frames] == list(range(len(pictures)))
        for frame, picture in zip(frames, pictures, strict=True):
            assert list(frame.predictions) == ["scene", "depth"] and frame.error is None and frame.latency_s > 0
            np.testing.assert_array_equal(frame.image, picture)
            for task in frame.predictions:
                np.testing.assert_array_equal(frame[task].raw, expected(picture, task))
        stats = stream.stats
        assert (stats.frames, stats.inferences, stats.failures) == (8, 16, 0)
        assert 0 < stats.latency_p50 <= stats.latency_p90 <= stats.latency_max < stats.seconds * 1.01
        assert stats.fps == pytest.approx(8 / stats.seconds) and 0 < stats.device_share <= 1
        assert list(stream) == []  # an exhausted stream stays so


def test_task_lists(accelerator, pictures):
    lists = ["depth", ["edges", "scene"], ("normals",), "depth"]
    forms = {"a list of lists": lists, "a generator": iter(lists), "a function": lambda number: lists[number]}
    for tasks in forms.values():
        frames = list(accelerator.stream(pictures[:4], tasks))
        assert [list(frame.predictions) for frame in frames] == [["depth"], ["edges", "scene"], ["normals"], ["depth"]]
    assert list(next(accelerator.stream(pictures)).predictions) == list(accelerator.tasks)
    stream = accelerator.stream(pictures, lists[:2] + [["depth", "smell"]])
    assert [next(stream).number, next(stream).number] == [0, 1]
    with pytest.raises(FrameError, match="frame 2: this bundle has no task 'smell'"):
        next(stream)
    stream = accelerator.stream(pictures, iter(["depth"]))
    assert next(stream).number == 0
    with pytest.raises(FrameError, match="frame 1: there are no tasks for it"):
        next(stream)


def test_one_at_a_time(accelerator, pictures):
    stream = accelerator.stream(pictures, "depth")
    for use in (accelerator.run, accelerator.stream):
        with pytest.raises(DeviceError, match="a stream is using this accelerator; finish or close it first"):
            use(pictures[0], "depth")
    stream.close()
    stream.close()
    assert list(stream) == []
    accelerator.run(pictures[0], "depth")


def test_early_end(accelerator, pictures, expected):
    """Dropped, closed, or closed with the accelerator: the threads end, and the source is closed."""
    closed = []

    def endless():
        try:
            while True:
                yield from pictures
        finally:
            closed.append(True)

    for frame in accelerator.stream(endless(), "depth"):
        if frame.number == 2:
            break
    with accelerator.stream(endless(), "depth") as stream:
        next(stream)
    assert closed == [True, True]
    np.testing.assert_array_equal(accelerator.run(pictures[1], "depth").raw, expected(pictures[1], "depth"))
    stream = accelerator.stream(endless(), "depth")
    next(stream)
    accelerator.close()
    assert len(closed) == 3 and list(stream) == []


def test_source_that_does_not_return(accelerator, pictures):
    """Closing does not wait for it for long, and its late frame touches nothing."""
    late = threading.Event()

    def stuck():
        yield pictures[0]
        late.wait(20)
        yield pictures[1]

    with accelerator.stream(stuck(), "depth") as stream:
        next(stream)
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 10
    accelerator.close()
    late.set()
    for thread in threading.enumerate():
        if thread.name.startswith("edgemoe"):
            thread.join(5)


def failing(pictures):
    yield from pictures[:2]
    raise OSError("the camera is gone")


def test_exception_of_the_source(accelerator, pictures, expected):
    for on_error in ("raise", "report"):
        stream = accelerator.stream(failing(pictures), "depth", on_error=on_error)
        for number in range(2):
            np.testing.assert_array_equal(next(stream)["depth"].raw, expected(pictures[number], "depth"))
        if on_error == "raise":
            with pytest.raises(FrameError, match="frame 2: the camera is gone") as caught:
                next(stream)
            assert caught.value.frame == 2 and isinstance(caught.value.__cause__, OSError)
        else:
            frame = next(stream)
            assert isinstance(frame.error, OSError) and frame.number == 2 and frame.predictions == {}
        assert list(stream) == []


def test_exception_of_a_frame(accelerator, pictures, expected):
    """Nothing of the other frames is lost."""
    source = [*pictures[:3], pictures[3][1:], *pictures[4:]]
    numbers = []
    with pytest.raises(FrameError, match="frame 3: it is 16x11 pixels"):
        for frame in accelerator.stream(source, "depth"):
            numbers.append(frame.number)
    assert numbers == [0, 1, 2]
    stream = accelerator.stream(source, "depth", on_error="report")
    frames = list(stream)
    assert [frame.number for frame in frames] == list(range(8)) and stream.stats.failures == 1
    for frame in frames:
        if frame.number == 3:
            assert isinstance(frame.error, ValueError) and not frame.predictions
        else:
            np.testing.assert_array_equal(frame["depth"].raw, expected(pictures[frame.number], "depth"))
    with pytest.raises(ValueError, match="on_error must be raise or report, not 'ignore'"):
        accelerator.stream(pictures, on_error="ignore")


def test_exception_of_postprocessing(accelerator, pictures, monkeypatch):
    from edgemoe.runtime import pipeline

    interpret, calls = pipeline.interpret, []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise ArithmeticError("no picture today")
        return interpret(*arguments)

    monkeypatch.setattr(pipeline, "interpret", broken)
    numbers = []
    with pytest.raises(FrameError, match="frame 2: no picture today"):
        for frame in accelerator.stream(pictures, "depth"):
            numbers.append(frame.number)
    assert numbers == [0, 1]


def test_interrupted_by_the_user(accelerator, pictures):
    """Ctrl-C while the consumer waits: the exception arrives, everything ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored

    def slow():
        yield from pictures[:2]
        time.sleep(0.3)
        _thread.interrupt_main()
        time.sleep(0.3)

    numbers = []
    with pytest.raises(KeyboardInterrupt):
        for frame in accelerator.stream(slow(), "depth"):
            numbers.append(frame.number)
    assert numbers == [0, 1]
    assert accelerator.run(pictures[0], "depth").task == "depth"
