"""Whatever a bundle's parts say: what contradicts the model, the programs or each other is one line at loading."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

import edgemoe
from edgemoe.bundle import Bundle, BundleError
from edgemoe.compiler import build_bundle
from edgemoe.compiler.errors import CompilerOptions
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.graph.file import graph_bytes
from support.bundles import at, parts_of, put, sealed, write_parts
from support.random_graphs import random_graph, small_model

NAN, INFINITE, HUGE = float("nan"), float("inf"), 10**30
CONFIG = PRESETS["tiny"]
MODEL = small_model()  # 13 tokens of 40 channels, 5 experts, tasks segmentation and classification


@pytest.fixture(scope="module")
def bundle():
    return build_bundle(random_graph(MODEL), CONFIG)


@pytest.fixture(scope="module")
def parts(bundle, tmp_path_factory):
    return parts_of(bundle, tmp_path_factory.mktemp("bundle"))


# --- The document -----------------------------------------------------------------------------------------------------

#: Values that no field may have, besides what is wrong for each; JSON writes NaN and Infinity, and so may others.
NEVER = (None, NAN, INFINITE, "x", [], {}, [1], HUGE, -HUGE)


@pytest.mark.parametrize("value", (-1, 0, 1, 64, 1 << 40, 1.5, True, *NEVER), ids=str)
@pytest.mark.parametrize(
    "place",
    [
        "input_bytes",
        "tasks.segmentation.output_bytes",
        "tasks.segmentation.output_rows",
        "tasks.segmentation.output_channels",
        "tasks.segmentation.output_scale",
        "tasks.segmentation.load_bytes",
        "tasks.segmentation.phases.0.matmuls",
        "tasks.segmentation.outputs.0.0",
        "tasks.segmentation.outputs.0.2",
        "tasks.segmentation.outputs.0.5",
    ],
)
def test_numbers_that_follow_from_others(parts, refused, place, value):
    if value == at(parts[0], place) and type(value) is type(at(parts[0], place)):
        return
    refused((put(parts[0], place, value), parts[1]), "x.emoe: the bundle is inconsistent")


@pytest.mark.parametrize("value", (-1, 1.5, True, *NEVER), ids=str)
@pytest.mark.parametrize("field", ["macs", "bytes_read", "bytes_written", "expert_macs", "expert_bytes"])
def test_numbers_of_reports(parts, refused, field, value):
    refused(
        (put(parts[0], f"tasks.segmentation.phases.0.{field}", value), parts[1]), "x.emoe: the bundle is inconsistent"
    )


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("format_version", True, "bundle format True, but this edgemoe has 2"),
        ("isa_version", 2.0, "ISA version 2.0, but this edgemoe has"),
        ("config.name", "../x", "name must be letters"),
        ("config.act_depth", 1 << 40, "act_depth must be at most 65536"),
        ("config.act_depth", 4096, "its config has hash .*, but config_hash is another"),
        ("config_hash", None, "config_hash is another"),
        ("config", [], "config must be a JSON object"),
        ("model.depth", 10**9, "depth must be at most"),
        ("model.depth", 1, "model differs from the model of the integer graph"),
        ("model.dim", 80, "model differs from the model of the integer graph"),
        ("model.heads", 1, "model differs"),
        ("model.moe_every", 1, "model differs"),
        ("model.num_experts", 4, "model differs"),
        ("model.num_experts", 33, "has 33 experts, but config tiny allows 16"),
        ("model.image_height", 24, "input_bytes is 576, but an image of the model needs"),
        ("model.image_width", 4096, "has 3073 tokens, but config tiny allows 256"),
        ("model.tasks", [], "tasks must be a non-empty tuple"),
        ("model.tasks.0.name", "other", "tasks lacks other"),
        ("tasks.more", {}, "tasks must have no 'more'"),
        ("tasks.segmentation", {}, "tasks.segmentation lacks load_bytes"),
        ("tasks.segmentation.more", 1, "tasks.segmentation must have no 'more'"),
        ("tasks.segmentation.outputs", [], "tasks.segmentation.outputs must have 1..65536 items, not 0"),
        ("tasks.segmentation.outputs.0", [0, 0, 12, 0, 20], r"outputs\[0\] must have 6 items, not 5"),
        ("tasks.segmentation.outputs.0", [0, 0, 12, 0, 20, "a"], r"outputs\[0\].stride must be an integer"),
        (
            "tasks.segmentation.outputs.0",
            [0, 5, 12, 0, 20, 24],
            r"outputs\[0\] has rows to 17 and channels to 20 of 12",
        ),
        ("tasks.segmentation.outputs.0", [0, 0, 11, 0, 20, 24], "outputs lack channel 0 of row 11"),
        ("tasks.segmentation.outputs.0", [0, 0, 12, 0, 19, 24], "outputs lack channel 19 of row 0"),
        ("tasks.segmentation.outputs.0", [0, 0, 12, 0, 20, 19], r"outputs\[0\] has stride 19 at offset 0 for 20"),
        ("tasks.segmentation.outputs.0", [1, 0, 12, 0, 20, 24], r"outputs\[0\] has stride 24 at offset 1"),
        ("tasks.segmentation.outputs.0", [64, 0, 12, 0, 20, 24], "ends at byte 640, beyond output_bytes 576"),
        ("tasks.segmentation.outputs.0", [0, 0, 12, 0, 20, 20], "output_bytes is 576, but the outputs end at byte 480"),
        ("tasks.segmentation.outputs", [[0, 0, 12, 0, 20, 24]] * 2, r"outputs\[1\] has values that are in an earlier"),
        ("tasks.segmentation.outputs", [[0, 0, 12, 0, 10, 24], [0, 0, 12, 10, 10, 24]], "outputs overlap at byte 0"),
        ("tasks.segmentation.output_scale", 0.02, "output_scale is not that of the integer graph"),
        ("tasks.segmentation.output_rows", 64, "output_rows is 64, but the model's head has 12"),
        ("tasks.segmentation.load_bytes", 64, "load_bytes is 64, but the program's LOADs read"),
        ("tasks.segmentation.phases", [], r"phases must have 1..256 items, not 0"),
        ("tasks.segmentation.phases.1", {}, r"phases\[1\] lacks bytes_read"),
        ("tasks.segmentation.phases.1.name", "head", "phases must be embed, blocks.0.attention, ... head: 6 of them"),
        ("tasks.segmentation.phases.1.name", "a\nb", r"phases\[1\].name must be a line of at most"),
        ("tasks.segmentation.phases.1.matmuls", 3, r"phases\[1\].matmuls is 3, but the program has"),
        ("tasks.segmentation.phases.0.expert_macs", 3, r"phases\[0\] has experts' MACs or bytes, but embed has no"),
        ("tasks.segmentation.phases.0.prefetched", [3], r"phases\[0\] has experts' MACs or bytes, but embed has no"),
        ("tasks.segmentation.phases.4.prefetched", [3], r"phases\[4\].prefetched has 1 items for"),
        ("tasks.segmentation.phases.4.prefetched", [-1], r"phases\[4\].prefetched\[0\] must be an integer in 0"),
        ("tasks.segmentation.phases.4.prefetched", [1] * 33, r"phases\[4\].prefetched must have 0..32 items, not 33"),
        ("options.expert_prefetch", "some", "options.expert_prefetch must be a finite number"),
        ("tasks.segmentation.phases.0.estimated_cycles", 10**20, "estimated_cycles must be an integer in 0..109951162"),
        ("input_bytes", 10**30, "a number in it has more than 25 digits"),
        ("options", [], "options must be an object"),
        ("options.group_tokens", "many", "options.group_tokens must be a finite number"),
        ("options.group_tokens", NAN, "NaN, which is no finite number"),
        ("options.a\nb", 1, "a name of options must be a line"),
        ("more", 1, "document must have no 'more'"),
    ],
)
def test_fields(parts, refused, place, value, message):
    document = put(parts[0], place.replace("a\nb", "ab"), value)
    refused((json.loads(json.dumps(document).replace('"ab"', '"a\\nb"')), parts[1]), message)


def test_what_may_differ(parts, tmp_path):
    """Figures for reports have ranges only, options any number."""
    document = put(parts[0], "tasks.segmentation.phases.0.macs", 0)
    document = put(document, "options.group_tokens", 7)
    loaded = sealed(tmp_path / "x", (document, parts[1]))
    assert loaded.task("segmentation").phases[0].macs == 0 and loaded.options["group_tokens"] == 7


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[" * 100_000, "lie more than 32 deep within each other"),
        ("{", "it is not JSON"),
        ("1", "bundle format None"),
        ("9" * 100_000, "has more than 25 digits"),
    ],
)
def test_documents_that_are_none(parts, refused, document, message):
    refused((document, parts[1]), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("data"), "tensor data is missing"),
        (lambda t: t.pop("trace.segmentation"), "tensor trace.segmentation is missing"),
        (lambda t: t.update(more=t["data"]), "tensor more is unexpected"),
        (lambda t: t.update(data=t["data"].reshape(-1, 2)), r"tensor data must be uint8 \[N\], not uint8 \["),
        (lambda t: t.update(data=t["data"].astype(np.int64)), "tensor data must be uint8 .*, not int64"),
        (
            lambda t: t.update(data=t["data"][:-64]),
            r"command \d+ \(LOAD\) reads bytes \d+ to \d+ of the weights, which",
        ),
        (lambda t: t.update(graph=t["graph"][:-1]), "integer graph is unusable"),
        (lambda t: t.update(graph=t["graph"][:100]), "not a readable graph file"),
        (lambda t: t.update(graph=t["data"]), "not a readable graph file"),
    ],
)
def test_tensors(parts, tmp_path, change, message):
    tensors = dict(parts[1])
    change(tensors)
    write_parts(tmp_path / "x", parts[0], tensors)
    with pytest.raises(BundleError, match=message):
        Bundle.load(tmp_path / "x").graph()  # its tensors are looked at where it is used


def test_another_models_graph(parts, refused):
    other = graph_bytes(random_graph(small_model(mlp_hidden=80)))
    refused((parts[0], parts[1] | {"graph": np.frombuffer(other, np.uint8)}), "model differs")


# --- The trace --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, "blocks.9.q", r"trace\[3\] is of 'blocks.9.q', which task segmentation does not have"),
        (0, 1, "trace must have entries of a name and 10 integers"),
        (1, True, "trace must have entries of a name and 10 integers"),
        (1, 1.0, "trace must have entries"),
        (1, "1", "trace must have entries"),
        (1, HUGE, "trace has a number|a number in it has|must have integers in"),
        (1, 1 << 63, "trace must have integers in -1..4294967296"),
        (1, -2, "trace must have integers in"),
        (1, -1, "names a command that there is not"),
        (1, 1 << 20, "names a command that there is not"),
        (2, 3, "is not of its command's engine"),
        (3, 0, "is complete at another count"),
        (4, 13, "is outside its tensor"),
        (5, 0, "is outside its tensor"),
        (5, 1, "is not what its command writes"),
        (6, 40, "is outside its tensor"),
        (7, 1000, "is outside its tensor"),
        (8, 0, "is of a head or expert that there is not"),
        (9, 0, "is of a head or expert that there is not"),
        (10, 1, "trace must be of sequences 0..0"),
        (10, -1, "trace must be of sequences 0..0"),
    ],
)
def test_trace(parts, refused, column, value, message):
    table = json.loads(parts[1]["trace.segmentation"].tobytes())
    table[3][column] = value
    text = np.frombuffer(json.dumps(table).encode(), np.uint8)
    refused((parts[0], parts[1] | {"trace.segmentation": text}), message)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "trace must be a list"),
        ([1], "trace must have entries of a name"),
        ([["embed"]], "trace must have entries of a name"),
        ([["embed", 0, 0, 1, 0, 1, 0, 1, -1, -1, 0]] * 100_000, "trace must have 0..[0-9]+ items, not 100000"),
        ("[" * 100_000, "tensor trace.segmentation is damaged: its lists and objects lie more than"),
    ],
)
def test_traces_that_are_none(parts, refused, table, message):
    text = table if isinstance(table, str) else json.dumps(table)
    refused((parts[0], parts[1] | {"trace.segmentation": np.frombuffer(text.encode(), np.uint8)}), message)


def test_a_bundle_without_trace_is_one(parts, tmp_path):
    empty = {"trace.segmentation": np.frombuffer(b"[]", np.uint8)}
    assert sealed(tmp_path / "x", (parts[0], parts[1] | empty)).task("segmentation").trace == []


# --- What is right stays right ----------------------------------------------------------------------------------------

ORDERS = (
    CompilerOptions(),
    CompilerOptions(prefetch=False, group_tokens=7),
    CompilerOptions(moe_group=4, attention_group=5),
    CompilerOptions(single_pass_softmax=False, fused_activation=False),
)
MODELS = (
    {},
    {"moe_every": 1, "heads": 5},
    {"num_experts": 0, "top_k": 0, "expert_hidden": 0},
    {"image_height": 40, "image_width": 40, "depth": 1},
)


@pytest.mark.parametrize("changes", MODELS, ids=str)
@pytest.mark.parametrize("config", PRESETS)
def test_what_the_compiler_makes_is_accepted(changes, config):
    for expert_bits, options in [(8, order) for order in ORDERS] + [(4, ORDERS[0])]:
        build_bundle(random_graph(small_model(**changes), 1, expert_bits), PRESETS[config], options).check()


def test_checks_take_milliseconds():
    """docs/runtime.md states them; this bound is for a machine that has other things to do."""
    packaged = Bundle.load(Path(edgemoe.__file__).parent / "bundles" / "m3vit-micro-w8a8-pynq-z2.emoe")
    begin = time.process_time()
    for _ in range(5):
        packaged.check()
    assert (time.process_time() - begin) / 5 < 0.15
