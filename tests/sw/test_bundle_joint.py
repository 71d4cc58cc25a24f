"""Programs of several tasks or images in a bundle's file: saved and read whole, and every field of them is checked."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from edgemoe.bundle import Bundle, BundleError, Joined
from edgemoe_hw.spec.isa import Base, Engine, Load, Store
from support.bundles import at, parts_of, put
from support.programs import changed, command, find, rewritten

ALL = ("segmentation", "depth", "normals", "edges", "scene")
NEVER = (None, float("nan"), "x", [], {}, [1], 10**30, -(10**30))


@pytest.fixture(scope="module")
def parts(joint_bundle, tmp_path_factory):
    return parts_of(joint_bundle, tmp_path_factory.mktemp("bundle"))


def test_all_of_it_comes_back(joint_bundle, tmp_path):
    joint_bundle.save(tmp_path / "x.emoe")
    loaded = Bundle.load(tmp_path / "x.emoe")
    assert loaded.joint == joint_bundle.joint and loaded.most_images == 4
    loaded.save(tmp_path / "y.emoe")
    assert (tmp_path / "x.emoe").read_bytes() == (tmp_path / "y.emoe").read_bytes()


def test_programs_are_found(joint_bundle, runtime_bundle):
    assert joint_bundle.find_joint(["depth", "segmentation"]).joined == Joined(("segmentation", "depth"))
    assert joint_bundle.find_joint(["depth"], 3) is joint_bundle.program(Joined(("depth",), 3))
    assert joint_bundle.find_joint(["depth", "edges"]) is None and joint_bundle.find_joint(ALL, 2) is None
    assert joint_bundle.program(Joined(("depth",))) is joint_bundle.task("depth")
    with pytest.raises(BundleError, match="no program of task edges of 2 images; it has tasks segmentation, depth, "):
        joint_bundle.program(Joined(("edges",), 2))
    with pytest.raises(BundleError, match="it has none of several tasks or images"):
        runtime_bundle.program(Joined(ALL))


@pytest.mark.parametrize("value", (-1, 0, 1, 64, 1 << 40, 1.5, True, *NEVER), ids=str)
@pytest.mark.parametrize(
    "place",
    [
        "joint.0.images",
        "joint.0.output_bytes",
        "joint.0.load_bytes",
        "joint.0.phases.0.matmuls",
        "joint.0.outputs.1.0.0",
        "joint.0.outputs.1.0.2",
        "joint.0.outputs.1.0.5",
        "joint.2.images",
    ],
)
def test_numbers_that_follow_from_others(parts, refused, place, value):
    if value == at(parts[0], place) and type(value) is type(at(parts[0], place)):
        return
    refused((put(parts[0], place, value), parts[1]), "x.emoe: the bundle is inconsistent")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("joint", {}, "joint must be a list"),
        ("joint.0", [], r"joint\[0\] must be an object"),
        ("joint.0", {}, r"joint\[0\] lacks images"),
        ("joint.0.more", 1, r"joint\[0\] must have no 'more'"),
        ("joint.0.tasks", [], r"joint\[0\].tasks must have 1..64 items, not 0"),
        ("joint.0.tasks", ["segmentation"], r"joint\[0\].outputs must have 1 items, not 5"),
        ("joint.0.tasks", [*ALL[:4], 3], r"joint\[0\].tasks\[4\] must be"),
        ("joint.0.tasks", [*ALL[:4], "fog"], r"joint\[0\].tasks must be of segmentation, .*, in this order, not"),
        ("joint.0.tasks", [*ALL[:4], "edges"], r"joint\[0\].tasks must be of segmentation, .*, in this order, not"),
        ("joint.0.tasks", list(ALL[::-1]), r"joint\[0\].tasks must be of segmentation, .*, in this order, not scene"),
        ("joint.0.images", 2, r"joint\[0\].outputs must have 10 items, not 5"),
        ("joint.2.images", 3, r"joint\[2\].outputs must have 3 items, not 2"),
        ("joint.0.outputs", [], r"joint\[0\].outputs must have 5 items, not 0"),
        ("joint.0.outputs.1", [], r"joint\[0\].outputs\[1\] must have 1..65536 items, not 0"),
        ("joint.0.outputs.1.0", [0, 0, 12, 0, 20], r"joint\[0\].outputs\[1\]\[0\] must have 6 items, not 5"),
        ("joint.0.phases.0.name", "x", r"joint\[0\].phases must be embed, "),
        ("joint.0.phases.0.macs", -1, r"joint\[0\].phases\[0\].macs must be"),
    ],
)
def test_tables_that_contradict(parts, refused, place, value, message):
    refused((put(parts[0], place, value), parts[1]), message)


def test_the_same_program_twice(parts, refused):
    document, tensors = copy.deepcopy(parts[0]), dict(parts[1])
    document["joint"][1] = document["joint"][0]
    for kind in ("program", "trace"):
        tensors[f"joint_{kind}.1"] = tensors[f"joint_{kind}.0"]
    refused((document, tensors), r"joint\[0\].tasks and images are those of another program too")


def test_a_single_tasks_own_program(parts, refused):
    document, tensors = copy.deepcopy(parts[0]), dict(parts[1])
    task = document["tasks"]["depth"]
    document["joint"][0] = {
        "tasks": ["depth"],
        "images": 1,
        "outputs": [task["outputs"]],
        **{name: task[name] for name in ("output_bytes", "phases", "load_bytes")},
    }
    for kind in ("program", "trace"):
        tensors[f"joint_{kind}.0"] = tensors[f"{kind}.depth"]
    refused((document, tensors), r"joint\[0\].tasks and images are those of a single task's own program")


@pytest.mark.parametrize("name", ["joint_program.0", "joint_trace.7"])
def test_tensors(parts, refused, name):
    tensors = dict(parts[1])
    kept = tensors.pop(name)
    refused((parts[0], tensors), f"tensor {name} is missing")
    refused((parts[0], {**parts[1], "joint_program.8": kept}), "tensor joint_program.8 is unexpected")
    refused((parts[0], {**parts[1], name: kept[:-1]}), "the bundle is inconsistent")


def with_program(parts, number, program):
    return parts[0], {**parts[1], f"joint_program.{number}": np.frombuffer(program, np.uint8)}


def program_of(parts, number):
    return parts[1][f"joint_program.{number}"].tobytes()


COPIES = {"base": Base.OUTPUT}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda load: {"offset": load.offset + 1600}, r"\(LOAD\) reads bytes \d+ to \d+ of the output, which no STORE"),
        (lambda load: {"rows": load.rows + 60}, "of the output, which"),
        (lambda load: {"offset": 1 << 31}, "of the output, which has"),
    ],
)
def test_copies_that_nothing_has_stored(parts, refused, change, message):
    """The tail of the output is stored by the heads, at the end."""
    program = program_of(parts, 0)
    where = find(program, Load, **COPIES)[-1]
    fields = change(command(program, where)[1])
    refused(
        with_program(parts, 0, changed(program, where, **fields)), rf"program of tasks .*: command {where} .*{message}"
    )


def test_copies_that_do_not_wait(parts, refused):
    """What a STORE has not written yet is a former program's."""
    program = program_of(parts, 0)
    where = find(program, Load, **COPIES)[0]

    def hasty(header, payload):
        waits = list(header.waits)
        waits[Engine.STORE] = 0
        return dataclasses.replace(header, waits=tuple(waits)), payload

    refused(
        with_program(parts, 0, rewritten(program, where, hasty)),
        f"command {where} .*of the output, which no STORE that it waits for has written",
    )


def test_copies_of_fewer_rows(parts, refused):
    program = program_of(parts, 0)
    where = find(program, Store)[0]
    refused(with_program(parts, 0, changed(program, where, rows=1)), "which no STORE that it waits for has written")


def test_only_programs_of_several_tasks_read_the_output(parts, refused):
    """A batch copies nothing: it must not see what a former program has left."""
    program = program_of(parts, 2)
    where = find(program, Load, base=Base.INPUT)[0]
    refused(
        with_program(parts, 2, changed(program, where, base=Base.OUTPUT)),
        "program of task depth of 2 images: .* reads at base 2, where there is nothing to read",
    )


def test_the_input_has_all_images(parts, refused, joint_bundle):
    program, size = program_of(parts, 2), joint_bundle.input_bytes
    where = find(program, Load, base=Base.INPUT)[-1]
    refused(
        with_program(parts, 2, changed(program, where, offset=2 * size)),
        f"reads bytes {2 * size} to .* of the input, which has {2 * size}",
    )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [(10, 5, r"trace must be of sequences 0..4"), (10, -1, r"trace must be of sequences 0..4"), (1, 9999, "command")],
)
def test_traces(parts, refused, column, value, message):
    trace = json.loads(parts[1]["joint_trace.0"].tobytes())
    trace[0][column] = value
    tensor = np.frombuffer(json.dumps(trace).encode(), np.uint8)
    refused((parts[0], {**parts[1], "joint_trace.0": tensor}), rf"joint\[0\].*{message}")


def test_a_trace_of_another_sequence(parts, refused):
    """The tensors of each sequence are its task's."""
    trace = json.loads(parts[1]["joint_trace.0"].tobytes())
    place = next(number for number, entry in enumerate(trace) if entry[0] == "heads.segmentation")
    trace[place][10] = 1
    tensor = np.frombuffer(json.dumps(trace).encode(), np.uint8)
    refused(
        (parts[0], {**parts[1], "joint_trace.0": tensor}),
        rf"trace\[{place}\] is of 'heads.segmentation', which task depth does not have",
    )
