"""The command line: what it does, and every bad input as one message without a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from PIL import Image

from edgemoe.bundle import METADATA_KEY, Bundle
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.config import PRESETS as MODELS
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.graph.file import write_graph
from edgemoe_models.random_weights import random_state
from support.random_graphs import random_graph, small_model
from support.reference import expect

TASKS = (
    TaskConfig("segmentation", "segmentation", channels=8, head_hidden=20, cells=2),
    TaskConfig("depth", "depth", channels=1, cells=2),
    TaskConfig("scene", "classification", channels=11),
)
MODEL = small_model(tasks=TASKS)
SIZE = (MODEL.image_width, MODEL.image_height)


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "small.safetensors"
    write_graph(random_graph(MODEL), path)
    return path


@pytest.fixture(scope="module")
def built(graph_file, tmp_path_factory) -> Path:
    from edgemoe.compiler import build_bundle
    from edgemoe_models.graph.file import read_graph

    path = tmp_path_factory.mktemp("bundle") / "small.emoe"
    build_bundle(read_graph(graph_file), PRESETS["tiny"]).save(path)
    return path


@pytest.fixture
def bundle(built, tmp_path) -> Path:
    """A copy that may be damaged."""
    path = tmp_path / "small.emoe"
    path.write_bytes(built.read_bytes())
    return path


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Path:
    values = np.random.default_rng(1).integers(0, 256, (*size[::-1], len(mode)), np.uint8)
    Image.fromarray(values.squeeze(), mode).save(path)
    return path


@pytest.fixture
def image(tmp_path) -> Path:
    return picture(tmp_path / "scene.png")


def rewrite(path: Path, change) -> None:
    """Change the stored metadata text."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata[METADATA_KEY] = change(metadata[METADATA_KEY])
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


# What it does


def test_compile_info_and_disassembly(edgemoe, graph_file, tmp_path):
    path = tmp_path / "new" / "x.emoe"
    done = edgemoe("compile", "--model", graph_file, "--config", "tiny", "--out", path)
    assert done.code == 0 and f"{path}: {path.stat().st_size:,} bytes, tasks segmentation, depth, scene" in done.out
    loaded = Bundle.load(path)
    shown = edgemoe("info", path)
    assert shown.code == 0
    for text in (
        "16x12 pixels, 13 tokens of 40, 2 blocks",
        "5 experts, top 2",
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


def test_bench_of_other_expert_bits(edgemoe):
    done = edgemoe("bench", "--model", "m3vit-micro", "--config", "tiny", "--expert-bits", 3)
    done.refused("expert_bits must be 4 or 8")


def test_compile_for_a_configuration_file(edgemoe, graph_file, tmp_path):
    (tmp_path / "mine.json").write_text(PRESETS["zcu102"].to_json())
    assert (
        edgemoe("compile", "--model", graph_file, "--config", tmp_path / "mine.json", "--out", tmp_path / "x.emoe").code
        == 0
    )
    assert Bundle.load(tmp_path / "x.emoe").config == PRESETS["zcu102"]


def test_compile_a_checkpoint(edgemoe, tmp_path):
    save_checkpoint(tmp_path / "float.safetensors", lambda state: None)
    assert (
        edgemoe(
            "compile", "--model", tmp_path / "float.safetensors", "--config", "tiny", "--out", tmp_path / "x.emoe"
        ).code
        == 0
    )
    assert Bundle.load(tmp_path / "x.emoe").model == CHECKPOINT_MODEL


def test_run_on_the_reference(edgemoe, bundle, image, tmp_path):
    second = picture(tmp_path / "other.png")
    done = edgemoe("run", bundle, image, second, "--out", tmp_path / "out")
    assert done.code == 0 and "results are in" in done.out
    loaded = Bundle.load(bundle)
    pixels = np.asarray(Image.open(image))
    for name in loaded.tasks:
        expected = expect(loaded, pixels, name).outputs
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"scene-{name}.npy"), expected)
    for stem in ("scene", "other"):
        for name in ("segmentation", "depth"):
            with Image.open(tmp_path / "out" / f"{stem}-{name}.png") as drawn:
                assert drawn.mode == "RGB" and drawn.width > drawn.height / 4


def test_run_chosen_tasks(edgemoe, bundle, image, tmp_path):
    assert edgemoe("run", bundle, image, "--task", "depth", "--out", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene-depth.npy", "scene-depth.png"]


def test_run_with_images_of_another_size(edgemoe, bundle, tmp_path):
    large = picture(tmp_path / "large.png", size=(32, 24))
    assert edgemoe("run", bundle, large, "--resize", "squeeze", "--task", "depth", "--out", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["large-depth.npy", "large-depth.png"]


def test_run_on_the_rtl_and_report(edgemoe, bundle, image, tmp_path):
    done = edgemoe("run", bundle, image, "--device", "sim", "--trace", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    assert values["bit_exact"] and values["mismatches"] == 0 and values["tensors_compared"] == 94
    shown = edgemoe("report", tmp_path / "out" / "report.json")
    assert shown.code == 0 and "1.moe" in shown.out and "bit for bit" in shown.out


def test_as_a_process(bundle):
    """The entry point itself: exit code, and nothing but the message."""
    for arguments, code in ((("info", bundle), 0), (("info", "none.emoe"), 1)):
        done = subprocess.run(
            [sys.executable, "-m", "edgemoe.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr and bool(done.stderr) == bool(code)


# What it refuses


@pytest.mark.parametrize("command", ["info", "disasm", "run"])
@pytest.mark.parametrize("size", [0, 7, 2000, -1])
def test_truncated_bundle(edgemoe, bundle, image, command, size):
    bundle.write_bytes(bundle.read_bytes()[:size])
    edgemoe(command, bundle, *([image] if command == "run" else [])).refused(str(bundle), "corrupt or truncated")


def test_damaged_bundle(edgemoe, bundle, image):
    content = bytearray(bundle.read_bytes())
    content[-100] ^= 1
    bundle.write_bytes(content)
    edgemoe("run", bundle, image).refused(str(bundle), "damaged; copy it again, or compile it again")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("format_version", "bundle format 99, but this edgemoe has"),
        ("isa_version", "ISA version 99, but this edgemoe has"),
    ],
)
def test_bundle_of_another_version(edgemoe, bundle, image, key, message):
    rewrite(bundle, lambda text: re.sub(rf'\\"{key}\\": \d', rf'\\"{key}\\": 99', text))
    edgemoe("run", bundle, image).refused(str(bundle), message)


@pytest.mark.parametrize("content", [b"", b"hello", safetensors.numpy.save({"a": np.zeros(3)})])
def test_no_bundle(edgemoe, tmp_path, content):
    (tmp_path / "x.emoe").write_bytes(content)
    edgemoe("info", tmp_path / "x.emoe").refused("x.emoe")
    edgemoe("info", tmp_path / "none.emoe").refused("none.emoe: there is no such file")
    edgemoe("info", tmp_path).refused(str(tmp_path))


def test_images_that_do_not_fit(edgemoe, bundle, tmp_path):
    path = picture(tmp_path / "large.png", size=(32, 24))
    edgemoe("run", bundle, path).refused(str(path), "it is 32x24 pixels, but the model takes 16x12", "resize it")
    (tmp_path / "text.png").write_text("no picture")
    edgemoe("run", bundle, tmp_path / "text.png").refused("text.png: not a readable image")
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture(tmp_path / "whole.png").read_bytes()[:200])
    edgemoe("run", bundle, cut).refused("cut.png: not a readable image")
    edgemoe("run", bundle, tmp_path / "none.png").refused("none.png: there is no such file")


def test_unknown_names(edgemoe, bundle, image, tmp_path):
    edgemoe("run", bundle, image, "--task", "smell").refused("no task 'smell'; it has segmentation, depth, scene")
    edgemoe("disasm", bundle, "--task", "smell").refused("no task 'smell'")
    edgemoe("run", bundle, image, "--device", "moon").refused("device must be", "reference", "sim", "not 'moon'")
    edgemoe("compile", "--model", "none").refused("model must be one of m3vit-tiny", "not 'none'")
    for command in ("compile", "sim", "synth"):
        edgemoe(command, "--config", "none").refused("config must be one of pynq-z2", "not 'none'")
    edgemoe("report", tmp_path / "none.json").refused("there is no report; run edgemoe sim first")
    (tmp_path / "bad.json").write_text("{}")
    edgemoe("report", tmp_path / "bad.json").refused("not a report")


def test_waveforms_that_cannot_be(edgemoe, bundle, image, tmp_path):
    vcd = tmp_path / "x.vcd"
    edgemoe("run", bundle, image, "--waves", vcd).refused("--waves needs --device sim, not reference")
    edgemoe("run", bundle, image, "--device", "sim", "--waves-to", 3).refused("--waves FILE, which is missing")
    edgemoe("run", bundle, image, "--device", "sim", "--waves", vcd, "--waves-from", 9999).refused(
        "waves must be of commands 0 to ", "not 9999 to"
    )
    assert not vcd.exists()


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


def save_checkpoint(path: Path, change) -> None:
    state = random_state(CHECKPOINT_MODEL, 0)
    change(state)
    safetensors.numpy.save_file(state, path, {"config": CHECKPOINT_MODEL.to_json()})


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
