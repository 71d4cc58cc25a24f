"""``edgemoe compile``, ``info`` and ``disasm``, and models and configurations that are refused."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from edgemoe.bundle import Bundle
from edgemoe.workloads import CalibrationWarning, warn_of_scenes
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.config import PRESETS as MODELS
from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.file import graph_bytes, write_graph
from edgemoe_models.ptq.quantize import calibration_folder, quantize
from edgemoe_models.random_weights import random_state
from support.random_graphs import random_graph
from support.small_bundle import MODEL, TASKS, picture

CHECKPOINT_MODEL = ModelConfig(
    name="float",
    image_height=16,
    image_width=16,
    patch=8,
    dim=16,
    depth=2,
    heads=2,
    mlp_hidden=24,
    num_experts=3,
    top_k=1,
    expert_hidden=16,
    tasks=TASKS[1:2],
)


def save_checkpoint(path: Path, change, **metadata: str) -> None:
    state = random_state(CHECKPOINT_MODEL, 0)
    change(state)
    safetensors.numpy.save_file(state, path, {"config": CHECKPOINT_MODEL.to_json(), **metadata})


def test_compile_info_and_disassembly(edgemoe, graph_file, tmp_path):
    path = tmp_path / "new" / "x.emoe"
    done = edgemoe("compile", "--model", graph_file, "--config", "tiny", "--out", path)
    assert done.code == 0 and f"{path}: {path.stat().st_size:,} bytes, tasks segmentation, depth, scene" in done.out
    loaded = Bundle.load(path)
    shown = edgemoe("info", path)
    assert shown.code == 0 and max(map(len, shown.out.splitlines())) <= 80
    for text in (
        "16x12 pixels, 13 tokens of 40, 2 blocks",
        "5 experts, top 2",
        "activation GELU",
        "8x8 MACs",
        PRESETS["tiny"].content_hash[:16],
        f"{loaded.data.size:,} bytes",
        *loaded.tasks,
    ):
        assert text in shown.out
    lines = edgemoe("disasm", path, "--task", "depth").out.splitlines()
    assert len(lines) == loaded.task("depth").commands and "BEGIN" in lines[0] and "END" in lines[-1]
    everything = edgemoe("disasm", path).out.splitlines()
    headings = [line for line in everything if line.startswith("task ")]
    assert headings == [f"task {task.name}: {task.commands:,} commands" for task in loaded.tasks.values()]
    assert len(everything) == sum(task.commands for task in loaded.tasks.values()) + 2 * len(headings) - 1


def test_what_a_checkpoint_is_calibrated_on(edgemoe, graph_file, tmp_path):
    """Generated scenes with a warning that has the command, unless it was trained on them; or a folder."""
    images, float_file, out = tmp_path / "pictures", tmp_path / "mine.safetensors", tmp_path / "x.emoe"
    save_checkpoint(float_file, lambda state: None)
    for number in range(3):
        picture(images / f"{number}.png", size=(20 + number, 16))
    arguments = ("compile", "--model", float_file, "--config", "tiny", "--out", out)
    done = edgemoe(*arguments)
    assert done.code == 0 and f"WARNING: {float_file} is calibrated on 12 generated scenes, not on" in done.err
    assert f"edgemoe quantize {float_file} --images FOLDER --out mine.graph.safetensors" in done.err
    scenes = out.read_bytes()
    done = edgemoe(*arguments, "--images", images, "--count", 2)
    assert done.code == 0 and "WARNING" not in done.err and out.read_bytes() != scenes
    pictures = calibration_folder(images, CHECKPOINT_MODEL, 2)
    wanted = quantize(random_state(CHECKPOINT_MODEL, 0), CHECKPOINT_MODEL, pictures)
    assert Bundle.load(out).graph_file.tobytes() == graph_bytes(wanted)
    for trained, warned in (('{"data": "scenes"}', False), ("{}", False), ('{"data": "camvid"}', True), ("[", True)):
        save_checkpoint(float_file, lambda state: None, train=trained)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_scenes(float_file)
        assert [one.category for one in caught] == [CalibrationWarning] * warned
    for given in (graph_file, "m3vit-micro", "m3vit-micro-w8a8"):
        edgemoe("compile", "--model", given, "--images", images, "--out", out).refused(
            f"{given} is quantized already; pictures (--images) calibrate a float checkpoint"
        )
    edgemoe(*arguments, "--images", tmp_path / "none").refused("none: no such folder of calibration images")


def test_int4_experts_need_no_option(edgemoe, image, tmp_path):
    write_graph(random_graph(MODEL, expert_bits=4), tmp_path / "small.safetensors")
    assert (
        edgemoe(
            "compile", "--model", tmp_path / "small.safetensors", "--config", "tiny", "--out", tmp_path / "x.emoe"
        ).code
        == 0
    )
    assert "5 experts, top 2, expert weights int4" in edgemoe("info", tmp_path / "x.emoe").out
    assert "nibbles=1" in edgemoe("disasm", tmp_path / "x.emoe").out
    assert edgemoe("run", tmp_path / "x.emoe", image, "--out", tmp_path / "run").code == 0


def test_compile_for_a_configuration_file(edgemoe, graph_file, tmp_path):
    (tmp_path / "mine.json").write_text(PRESETS["zcu102"].to_json())
    assert (
        edgemoe("compile", "--model", graph_file, "--config", tmp_path / "mine.json", "--out", tmp_path / "x.emoe").code
        == 0
    )
    assert Bundle.load(tmp_path / "x.emoe").config == PRESETS["zcu102"]


@pytest.mark.parametrize(("given", "kept"), [("off", "off"), ("3", 3), ("auto", "auto")])
def test_experts_ahead_of_the_gate(edgemoe, graph_file, tmp_path, given, kept):
    edgemoe.ok(
        "compile", "--model", graph_file, "--config", "tiny", "--expert-prefetch", given, "--out", tmp_path / "x"
    )
    bundle = Bundle.load(tmp_path / "x")
    assert bundle.options["expert_prefetch"] == kept
    ahead = [any(phase.prefetched) for task in bundle.tasks.values() for phase in task.phases]
    assert any(ahead) == (given != "off")


@pytest.mark.parametrize("verb", ["compile", "sim", "bench"])
def test_experts_ahead_that_are_no_number(edgemoe, verb):
    outcome = edgemoe(verb, "--expert-prefetch", "some")
    outcome.refused("expert_prefetch must be off, auto or a number of experts, not 'some'")


def test_compile_a_checkpoint(edgemoe, tmp_path):
    save_checkpoint(tmp_path / "float.safetensors", lambda state: None)
    assert (
        edgemoe(
            "compile", "--model", tmp_path / "float.safetensors", "--config", "tiny", "--out", tmp_path / "x.emoe"
        ).code
        == 0
    )
    assert Bundle.load(tmp_path / "x.emoe").model == CHECKPOINT_MODEL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "mine.json: it is not JSON"),
        ("[" * 100_000, "mine.json: its lists and objects lie more than 32 deep"),
        ('{"lanes_k": 16, "lanes_k": 8}', "mine.json: the key 'lanes_k' comes twice"),
        ("[1]", "config must be a JSON object"),
        ('{"lanes": 3}', "unknown fields lanes"),
        ('{"lanes_k": 12}', "lanes_k must be a power of two, not 12"),
        ('{"lanes_n": "8"}', "lanes_n must be a positive"),
    ],
)
def test_wrong_configuration_file(edgemoe, graph_file, tmp_path, text, message):
    (tmp_path / "mine.json").write_text(text)
    edgemoe("compile", "--model", graph_file, "--config", tmp_path / "mine.json").refused(message)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(edgemoe, tmp_path, value):
    def spoil(state):
        state["blocks.1.norm1.weight"] = state["blocks.1.norm1.weight"].copy()
        state["blocks.1.norm1.weight"][3] = value

    save_checkpoint(tmp_path / "nan.safetensors", spoil)
    edgemoe(
        "compile", "--model", tmp_path / "nan.safetensors", "--config", "tiny", "--out", tmp_path / "x.emoe"
    ).refused("nan.safetensors", "blocks.1.norm1.weight")
    assert not (tmp_path / "x.emoe").exists()


def test_unusable_model_files(edgemoe, tmp_path, graph_file):
    def compile_it(name):
        return edgemoe("compile", "--model", tmp_path / name, "--config", "tiny", "--out", tmp_path / "x.emoe")

    (tmp_path / "text").write_text("no checkpoint")
    compile_it("text").refused("text")
    (tmp_path / "cut").write_bytes(graph_file.read_bytes()[:-9])
    compile_it("cut").refused("cut")
    save_checkpoint(tmp_path / "part", lambda state: state.pop("blocks.0.norm1.weight"))
    compile_it("part").refused("part", "blocks.0.norm1.weight")


def test_model_that_is_too_large(edgemoe, tmp_path):
    write_graph(random_graph(MODELS["m3vit-tiny"]), tmp_path / "large")
    edgemoe("compile", "--model", tmp_path / "large", "--config", "tiny", "--out", tmp_path / "x.emoe").refused(
        "129 tokens of 192 channels need 3096 rows of the residual scratchpad, which has 2048: 1048 too few"
    )
    assert not (tmp_path / "x.emoe").exists()
