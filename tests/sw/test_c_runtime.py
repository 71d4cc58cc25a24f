"""The C runtime (sw/c) against the Python host: the same bits on the simulated RTL, under AddressSanitizer."""

import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import edgemoe
from edgemoe.bundle import Bundle, Joined
from edgemoe.compiler import build_bundle
from edgemoe.runtime.packing import ImagePacker
from edgemoe.runtime.predictions import Measured, interpret
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import COMMAND_BYTES, Load, decode, encode
from edgemoe_models.config import TaskConfig
from edgemoe_models.model_image import ModelImage
from edgemoe_sim.build import build_accelerator
from support import c_runtime
from support.bundles import parts_of, write_parts
from support.pipe_platform import build_client, run_client
from support.random_graphs import random_graph, small_model

#: Every way of reading a whole picture's outputs, maps that are not upsampled and maps of odd ratios.
POOLED = (
    TaskConfig("cls", "classification", channels=7, labels=tuple(f"kind {i}" for i in range(7))),
    TaskConfig("avg", "classification", channels=300, pool="avg"),
    TaskConfig("dist", "classification", channels=5, pool="cls-dist"),
    TaskConfig("both", "features", channels=9, pool="cls-avg"),
    TaskConfig("full", "segmentation", channels=6, cells=4),
    TaskConfig("third", "normals", channels=3, cells=3),
    TaskConfig("many", "segmentation", channels=260, cells=1),
)


@pytest.fixture(scope="module")
def program():
    return c_runtime.build(variables=c_runtime.SANITIZED)


@pytest.fixture(scope="module")
def library():
    """The simulated ``tiny``."""
    return build_accelerator(PRESETS["tiny"])


@pytest.fixture(scope="module")
def joint_file(joint_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "joint.emoe"
    joint_bundle.save(path)
    return path


@pytest.fixture(scope="module")
def pooled_bundle():
    return build_bundle(random_graph(small_model(tasks=POOLED, prefix_tokens=2)), PRESETS["tiny"])


def write_pictures(folder, model, count):
    """PPM files and what is in them, uint8 [count, H, W, 3]."""
    pictures = np.random.default_rng(7).integers(0, 256, (count, model.image_height, model.image_width, 3), np.uint8)
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(folder / f"{number}.ppm")
        head = f"P6\n# a comment\n{model.image_width} {model.image_height}\n255\n"
        paths[-1].write_bytes(head.encode() + picture.tobytes())
    return paths, pictures


def values_of(prediction):
    """What ``emoe_values`` writes: of a classification the logits, since softmax is not of the same bits everywhere."""
    return prediction.decoded if prediction.kind == "classification" else prediction.values


def check_files(folder, stem, prediction):
    """Raw outputs, decoded outputs and values are the same bytes."""
    for suffix, wanted in (
        ("raw", prediction.raw),
        ("decoded", prediction.decoded),
        ("values", values_of(prediction)),
    ):
        found = (folder / f"{stem}.{suffix}").read_bytes()
        assert found == np.ascontiguousarray(wanted).tobytes(), f"{stem}.{suffix}"


def cycles_of(output):
    return {name: int(cycles) for name, cycles in re.findall(r"^([\w-]+): (\d+) cycles", output, re.M)}


def test_every_program_on_the_rtl(program, library, joint_bundle, joint_file, tmp_path):
    """Each task's own, all tasks together and batches of 2 to 4 images: bits and cycles as the Python driver's."""
    paths, pictures = write_pictures(tmp_path, joint_bundle.model, 3)
    done = c_runtime.run(program, "run", joint_file, *paths, "--sim", library, "--out", tmp_path)
    cycles = cycles_of(done.stdout)
    with edgemoe.open("sim", joint_bundle, quiet=True) as accelerator:
        for task in joint_bundle.tasks:
            prediction = accelerator.run(pictures[0], task)
            check_files(tmp_path, task, prediction)
            assert cycles[task] == prediction.stats.cycles
        for number, joint in enumerate(joint_bundle.joint):
            chosen = [pictures[place % 3] for place in range(joint.joined.images)]
            found = accelerator.run_program(joint.joined, chosen)
            for image, predictions in enumerate(found):
                for task, prediction in predictions.items():
                    check_files(tmp_path, f"joint{number}-{image}-{task}", prediction)
            first = joint.joined.tasks[0]
            assert cycles[f"joint{number}-0-{first}"] == found[0][first].stats.cycles


def test_interrupt(program, library, joint_file, joint_bundle, tmp_path):
    """Waiting for the interrupt gives the same outputs; one task alone can be run."""
    (path,), _ = write_pictures(tmp_path, joint_bundle.model, 1)
    command = [program, "run", joint_file, path, "--sim", library, "--task", "depth"]
    polled, waited = c_runtime.run(*command).stdout, c_runtime.run(*command, "--interrupt").stdout
    assert cycles_of(polled) == cycles_of(waited) and polled.split()[-1] == waited.split()[-1]


def test_smallest_packaged_model(program, library, tmp_path):
    """m3vit-micro for ``tiny``: every task equal to the integer reference. Minus sanitizers: millions of cycles."""
    with pytest.warns(UserWarning, match="does not fit tiny"):
        bundle = edgemoe.compile("m3vit-micro-w4a8", "tiny")
    bundle.save(tmp_path / "micro.emoe")
    (path,), (picture,) = write_pictures(tmp_path, bundle.model, 1)
    quick = c_runtime.build()
    done = c_runtime.run(quick, "run", tmp_path / "micro.emoe", path, "--sim", library, "--out", tmp_path)
    assert list(cycles_of(done.stdout)) == list(bundle.tasks)
    with edgemoe.open("reference", bundle) as reference:
        for task in bundle.tasks:
            check_files(tmp_path, task, reference.run(picture, task))


def write_raws(folder, bundle, generator):
    """Random outputs of every task, as ``host`` reads them; returns the predictions that they are."""
    predictions = {}
    for name in bundle.tasks:
        raw = generator.integers(-32768, 32768, bundle.model.device_outputs(name)).astype(np.int16)
        raw[generator.random(raw.shape) < 0.2] = 0  # equal classes, and zeros
        raw.tofile(folder / f"{name}.raw")
        predictions[name] = interpret(bundle, name, raw, Measured(0.0, 0.0), 0.0)
    return predictions


@pytest.mark.parametrize("which", ["runtime_bundle", "pooled_bundle"])
def test_host_side(which, program, request, tmp_path, rng):
    """Pictures and outputs of every kind and pool, without an accelerator."""
    check_host_side([program], request.getfixturevalue(which), tmp_path, rng)


def check_host_side(command, bundle, folder, rng):
    bundle.save(folder / "x.emoe")
    (path,), (picture,) = write_pictures(folder, bundle.model, 1)
    predictions = write_raws(folder, bundle, rng)
    output = c_runtime.run(*command, "host", folder / "x.emoe", path, folder).stdout
    memory = np.zeros(bundle.input_bytes, np.uint8)
    ImagePacker(bundle).pack(ModelImage(picture), memory)
    assert (folder / "input.bin").read_bytes() == memory.tobytes()
    for name, prediction in predictions.items():
        check_files(folder, name, prediction)
        if prediction.kind == "classification":
            best = [score.name for score in prediction.topk(5)] if prediction.label >= 0 else []
            shown = output[output.index(f"{name}: ") :].splitlines()[1 : 1 + len(best)]
            order = np.argsort(-prediction.decoded, kind="stable")[:5]
            names = [bundle.model.task(name).class_name(int(number)) for number in order]
            assert [re.sub(r"^ +\d+\. (.*) \(.*\)$", r"\1", line) for line in shown] == names


@pytest.mark.parametrize("which", c_runtime.PROCESSORS)
def test_on_a_boards_processor(which, joint_bundle, pooled_bundle, tmp_path, rng):
    """Compiled for it and emulated: the same input memory and values, on 32 bits too."""
    processor = c_runtime.PROCESSORS[which]
    command = [*processor.command(), str(c_runtime.build(cross=f"{processor.triple}-"))]
    for number, bundle in enumerate((joint_bundle, pooled_bundle)):
        folder = tmp_path / str(number)
        folder.mkdir()
        check_host_side(command, bundle, folder, rng)
    cut = tmp_path / "cut.emoe"
    cut.write_bytes((tmp_path / "0" / "x.emoe").read_bytes()[:-1])
    assert "damaged" in c_runtime.refused(*command, "check", cut)


@pytest.mark.parametrize("which", ["here", *c_runtime.PROCESSORS])
def test_driver_on_a_boards_processor(which, joint_bundle, joint_file, tmp_path):
    """The driver, compiled for it and emulated, runs every program on the RTL at the other end of a pipe."""
    command, cross = [], ""
    if which != "here":
        processor = c_runtime.PROCESSORS[which]
        command, cross = processor.command(), f"{processor.triple}-"
    (path,), (picture,) = write_pictures(tmp_path, joint_bundle.model, 1)
    output = run_client([*command, build_client(cross), joint_file, path, tmp_path], joint_bundle)
    rows = [[int(number) for number in line.split()] for line in output.splitlines()]
    assert len(rows) == len(joint_bundle.tasks) + len(joint_bundle.joint)
    with edgemoe.open("reference", joint_bundle) as reference:
        raws = {task: reference.run(picture, task).raw.tobytes() for task in joint_bundle.tasks}
    programs = [*joint_bundle.tasks.values(), *joint_bundle.joint]
    for (number, cycles, *tokens), info in zip(rows, programs, strict=True):
        for sequence, (task, _) in enumerate(info.heads):
            assert (tmp_path / f"{number}-{sequence}.raw").read_bytes() == raws[task]
        model, sequences = joint_bundle.model, len(info.heads)
        assert cycles > 0 and sum(tokens) == sequences * model.num_tokens * model.top_k


def test_avg_norm_is_refused(program, tmp_path):
    """Its norm and head are the host's, which is Python's alone."""
    tasks = (TaskConfig("mean", "features", channels=40, pool="avg-norm"),)
    bundle = build_bundle(random_graph(small_model(tasks=tuple(tasks))), PRESETS["tiny"])
    bundle.save(tmp_path / "x.emoe")
    (path,), _ = write_pictures(tmp_path, bundle.model, 1)
    np.zeros(bundle.model.device_outputs("mean"), np.int16).tofile(tmp_path / "mean.raw")
    message = c_runtime.refused(program, "host", tmp_path / "x.emoe", path, tmp_path)
    assert message.startswith("task mean: its norm and head (pool avg-norm) are the host's")


def test_other_accelerator(program, library, tmp_path, runtime_bundle):
    """The bundle's configuration must be the device's; hash and what to do are in the message."""
    other = edgemoe.bundle_names()[0]
    bundle = edgemoe.Bundle.load(edgemoe.packaged_bundles.find_bundle(other))
    (path,), _ = write_pictures(tmp_path, bundle.model, 1)
    file = edgemoe.packaged_bundles.find_bundle(other)
    message = c_runtime.refused(program, "run", file, path, "--sim", library)
    assert f"hash {bundle.config.hash32:#010x}" in message and f"{PRESETS['tiny'].hash32:#010x}" in message


def test_stopped_program(program, library, runtime_bundle, tmp_path):
    """The accelerator refuses rows that there are not: error code, its meaning and the command are in the message."""
    document, tensors = parts_of(runtime_bundle, tmp_path)
    commands = tensors["program.depth"].copy().reshape(-1, COMMAND_BYTES)
    decoded = [decode(command.tobytes()) for command in commands]
    number = next(number for number, (_, payload) in enumerate(decoded) if isinstance(payload, Load))
    header, payload = decoded[number]
    wrong = dataclasses.replace(payload, row=65000)
    commands[number] = np.frombuffer(encode(wrong, header), np.uint8)
    write_parts(tmp_path / "x.emoe", document, {**tensors, "program.depth": commands.reshape(-1)})
    (path,), _ = write_pictures(tmp_path, runtime_bundle.model, 1)
    message = c_runtime.refused(program, "run", tmp_path / "x.emoe", path, "--sim", library, "--task", "depth")
    assert f"command {number}: ADDRESS_RANGE, a command's memory, base or rows do not exist" in message
    assert "device sim: program 1" in message


def test_timeout(program, library, joint_file, joint_bundle, tmp_path):
    """How far the program is; what it still does is stopped before its memory is given back."""
    (path,), _ = write_pictures(tmp_path, joint_bundle.model, 1)
    message = c_runtime.refused(program, "run", joint_file, path, "--sim", library, "--timeout", "1e-6")
    assert re.search(
        r"did not end within 1e-06 s; error code NONE; of its \d+ commands these have finished: \d+ LOAD", message
    )
    again = c_runtime.refused(program, "run", joint_file, path, "--sim", library, "--timeout", "1e-6", "--retries", "2")
    assert again == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6\n4 4\n255\n" + bytes(48), "the picture has 4 x 4 pixels, and the model 16 x 12; resize it"),
        (b"P6\n16 12\n65535\n" + bytes(1152), "the head of a PPM file must have width, height and 255"),
        (b"P6\n16 12\n255\n" + bytes(500), "the picture is cut off"),
        (b"P5\n16 12\n255\n" + bytes(192), "a picture must be a PPM file (P6), or 576 bytes: RGB, 16 x 12 pixels"),
        (b"", "a picture must be a PPM file (P6)"),
        (None, "No such file or directory"),
    ],
)
def test_wrong_picture(program, joint_file, content, message, tmp_path):
    if content is not None:
        (tmp_path / "x.ppm").write_bytes(content)
    assert message in c_runtime.refused(program, "host", joint_file, tmp_path / "x.ppm", tmp_path)


def test_outputs_that_cannot_be_written(program, joint_file, joint_bundle, tmp_path):
    """Nothing is written elsewhere, and nothing is lost without a word."""
    (path,), _ = write_pictures(tmp_path, joint_bundle.model, 1)
    assert "Is a directory" in c_runtime.refused(program, "host", joint_file, tmp_path, tmp_path)
    c_runtime.run(program, "host", joint_file, path, tmp_path / "made")
    assert (tmp_path / "made" / "input.bin").is_file()
    message = c_runtime.refused(program, "host", joint_file, path, tmp_path / "none" / "deeper")
    assert message == f"cannot make the folder {tmp_path / 'none' / 'deeper'}: No such file or directory"
    (tmp_path / "file").touch()
    message = c_runtime.refused(program, "host", joint_file, path, tmp_path / "file")
    assert message == f"cannot write {tmp_path / 'file' / 'input.bin'}: Not a directory"
    outer = tmp_path / ("a" * 240)
    deep = outer / ("b" * 240)
    deep.mkdir(parents=True)
    c_runtime.run(program, "host", joint_file, path, deep)
    assert (deep / "input.bin").is_file() and [each.name for each in outer.iterdir()] == [deep.name]
    longest = "/".join(["c" * 200] * 25)
    assert "this path is too long" in c_runtime.refused(program, "host", joint_file, path, longest)
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = subprocess.run([program, "check", joint_file], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr == "edgemoe: the output cannot be written: No space left on device\n"


def test_wrong_command_line(program, library, joint_file, joint_bundle, tmp_path):
    (path,), _ = write_pictures(tmp_path, joint_bundle.model, 1)
    assert "usage: edgemoe-run" in c_runtime.run(program, status=2).stderr
    assert "usage: edgemoe-run" in c_runtime.run(program, "run", joint_file, path, "--retries", "x", status=2).stderr
    assert "say where the accelerator is" in c_runtime.refused(program, "run", joint_file, path)
    assert "cannot be loaded" in c_runtime.refused(program, "run", joint_file, path, "--sim", "/nowhere.so")
    unknown = c_runtime.refused(program, "run", joint_file, path, "--sim", library, "--task", "x")
    assert unknown == "the bundle has no task x"
    assert "cannot make the folder" in c_runtime.refused(
        program, "run", joint_file, path, "--sim", library, "--task", "depth", "--out", tmp_path / "none" / "deeper"
    )


def test_packaged_bundles(program):
    files = [edgemoe.packaged_bundles.find_bundle(name) for name in edgemoe.bundle_names()]
    lines = c_runtime.run(program, "check", *files).stdout.splitlines()
    for file, line in zip(files, lines, strict=True):
        bundle = Bundle.load(file)
        count = len(bundle.tasks) + len(bundle.joint)
        wanted = f"{bundle.model.name} for config {bundle.config.name}, {len(bundle.tasks)} tasks, {count} programs"
        assert line == f"{file}: {wanted}"


def test_a_bundle_of_many_programs(program, tmp_path):
    """More pieces than a list of fixed length for them once had room for."""
    tasks = [TaskConfig(name, "depth", 1) for name in ("a", "b", "c", "d")]
    joint = [Joined((task.name,), images) for task in tasks for images in range(9, 17)]
    bundle = build_bundle(random_graph(small_model(tasks=tuple(tasks))), PRESETS["tiny"], joint=joint)
    bundle.save(tmp_path / "x.emoe")
    assert c_runtime.run(program, "check", tmp_path / "x.emoe").stdout.endswith("4 tasks, 36 programs\n")


def test_nothing_allocates_in_the_loop(tmp_path):
    """Of the sources between open and close, none can allocate: their objects know no allocator."""
    folder = c_runtime.build().parent
    for name in ("driver", "pictures", "outputs", "commands", "sha256"):
        symbols = subprocess.run(["nm", "-u", folder / f"{name}.o"], capture_output=True, text=True, check=True).stdout
        assert not re.search(r"\b(malloc|calloc|realloc|strdup|free)\b", symbols), name
