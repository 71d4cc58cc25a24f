"""Bundles with anything changed and a hash that fits: refused in one line, or they behave as before.

Never another exception, a hang, or another result of the reference; and whatever program is accepted touches nothing
but its buffers and scratchpads, comes to its end, and can be compared with the reference.
"""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgemoe
from edgemoe.bundle import BundleError
from edgemoe.compiler import build_bundle
from edgemoe.layout import gather_outputs, pack_patches
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import COMMAND_BYTES
from edgemoe_models.integer import reference
from edgemoe_sim.command_model import FunctionalModel
from edgemoe_sim.trace import TraceChecker
from support.bundles import read_parts, sealed
from support.random_graphs import random_graph, small_model

TASK = "segmentation"
MODEL = small_model(depth=2, moe_every=2)
SETTINGS = settings(
    deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=250
)

#: Numbers around every limit, and values of every other type.
EVIL = st.one_of(
    st.sampled_from([None, True, False, "", "x", "\ud800", [], {}, [[]], {"a": 1}, 0.5, -0.0, 1e308, float("nan")]),
    st.sampled_from([0, 1, -1, 2, 64, 255, 256, 65535, 65536, 2**31, 2**32, 2**40, 2**63, 10**20, 10**30, -(2**63)]),
    st.integers(-3, 100),
    st.text(max_size=5),
    st.recursive(st.integers(-1, 1), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)


class Subject:
    """A bundle, its file's parts, and what the reference computes of an image."""

    def __init__(self, folder):
        self.bundle = build_bundle(random_graph(MODEL), PRESETS["tiny"])
        self.bundle.save(folder / "x.emoe")
        self.parts = read_parts(folder / "x.emoe")
        shape = MODEL.image_height, MODEL.image_width, 3
        self.image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        self.raw, self.traces = {}, {}
        with edgemoe.open("reference", self.bundle) as accelerator:
            for task in self.bundle.tasks:
                self.raw[task], self.traces[task] = accelerator.run(self.image, task).raw, {}
                reference.run(self.bundle.graph(), self.image, task, self.traces[task])

    def __repr__(self):
        return "subject"


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject(tmp_path_factory.mktemp("bundle"))


def places(value, path=()):
    """Paths of all values in a document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def loaded(path, parts):
    """The bundle, or None where it is refused as it must be."""
    try:
        return sealed(path, parts)
    except BundleError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path)) and len(str(error)) < 600
        return None
    except UnicodeEncodeError:  # the test's own file cannot hold a lone surrogate
        return None


@SETTINGS
@given(st.data())
def test_documents(subject, tmp_path, data):
    document, tensors = copy.deepcopy(subject.parts[0]), subject.parts[1]
    path = data.draw(st.sampled_from([path for path in places(document) if path]))
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    how = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if how == "remove":
        del owner[path[-1]]
    elif how == "add" and isinstance(owner, dict):
        owner[data.draw(st.sampled_from(["more", "name", "data", ""]))] = data.draw(EVIL)
    else:
        owner[path[-1]] = data.draw(EVIL)
    bundle = loaded(tmp_path / "x.emoe", (document, tensors))
    if bundle is None:
        return
    with edgemoe.open("reference", bundle) as accelerator:
        for task, raw in subject.raw.items():
            np.testing.assert_array_equal(accelerator.run(subject.image, task).raw, raw)
    bundle.save(tmp_path / "again.emoe")


@SETTINGS
@given(st.data())
def test_traces(subject, tmp_path, data):
    parts = subject.parts
    table = json.loads(parts[1][f"trace.{TASK}"].tobytes())
    row = data.draw(st.integers(0, len(table) - 1))
    column = data.draw(st.integers(0, len(table[row]) - 1))
    near = (
        st.integers(-2, 3).map(lambda step: table[row][column] + step)
        if column
        else st.sampled_from([part[0] for part in table])
    )
    table[row][column] = data.draw(near | EVIL)
    try:
        text = np.frombuffer(json.dumps(table).encode(), np.uint8)
    except ValueError:
        return
    changed = loaded(tmp_path / "x.emoe", (parts[0], parts[1] | {f"trace.{TASK}": text}))
    if changed is not None:
        compare(changed, subject)


@SETTINGS
@given(st.data())
def test_programs(subject, tmp_path, data):
    parts = subject.parts
    program = parts[1][f"program.{TASK}"].copy()
    count = len(program) // COMMAND_BYTES
    how = data.draw(st.sampled_from(["bit", "bit", "byte", "swap", "drop", "repeat"]))
    command = data.draw(st.integers(0, count - 1))
    words = program.reshape(count, COMMAND_BYTES)
    if how in ("bit", "byte"):
        place = data.draw(st.integers(0, 48 if data.draw(st.integers(0, 9)) else COMMAND_BYTES - 1))
        words[command, place] = (
            words[command, place] ^ 1 << data.draw(st.integers(0, 7))
            if how == "bit"
            else data.draw(st.integers(0, 255))
        )
    elif how == "swap":
        other = data.draw(st.integers(0, count - 1))
        words[[command, other]] = words[[other, command]]
    else:
        words = np.delete(words, command, 0) if how == "drop" else np.insert(words, command, words[command], 0)
    tensors = parts[1] | {f"program.{TASK}": np.ascontiguousarray(words).reshape(-1)}
    bundle = loaded(tmp_path / "x.emoe", (parts[0], tensors))
    if bundle is not None:
        compare(bundle, subject)


def compare(bundle, subject):
    """Run the program on the command-level model, comparing as a verified run does; values may differ, no more."""
    task, config = bundle.task(TASK), bundle.config
    checker = TraceChecker(config, task.program, task.trace, [subject.traces[TASK]], MODEL.heads, MODEL.num_tokens)
    source = pack_patches(config, reference.patchify(subject.image, MODEL.patch))
    assert len(source) == bundle.input_bytes
    device = FunctionalModel(
        config, bundle.data.tobytes(), source, task.output_bytes, seed=1, on_complete=checker.check
    )
    try:
        memory = device.run(task.program)
    except ValueError as error:  # of the arithmetic, where weights and parameters do not belong together
        assert str(error).startswith("accumulator")
        return
    assert len(memory) == task.output_bytes
    found = gather_outputs(task.outputs, memory, task.output_rows, task.output_channels)
    assert found.shape == subject.traces[TASK][f"heads.{TASK}"].shape
