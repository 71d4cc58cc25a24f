"""``edgemoe run`` and ``report``: what they say and write, and bundles and pictures that are refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from PIL import Image

from edgemoe import open as edgemoe_open
from edgemoe.bundle import METADATA_KEY, Bundle
from edgemoe_models.integer import reference
from support.reference import expect
from support.small_bundle import picture


def rewrite(path: Path, change) -> None:
    """Change the stored metadata text."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata[METADATA_KEY] = change(metadata[METADATA_KEY])
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


def test_run_says_what_it_found(edgemoe, bundle, image, tmp_path):
    second = picture(tmp_path / "other.png")
    lines = edgemoe.ok("run", bundle, image, second, "--out", tmp_path / "out").splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        str(image),
        str(second),
        f"results are in {tmp_path / 'out'}",
    ]
    loaded = Bundle.load(bundle)
    text = " ".join(" ".join(lines).split())
    with edgemoe_open("reference", loaded) as accelerator:
        labels = accelerator.run(image, "segmentation").labels
        metres = accelerator.run(image, "depth").metres
        best = accelerator.run(image, "scene").topk()
    assert f"{100 * np.bincount(labels.ravel()).max() / labels.size:.1f}%" in text
    assert f"depth {metres.min():.2f} to {metres.max():.2f} m, median {np.median(metres):.2f} m" in text
    assert "scene " + " ".join(f"{share:.1%} class {number}" for number, _, share in best) in text
    assert "cycles" not in text and "equal" not in text  # the reference has none, and is compared with nothing
    pixels = np.asarray(Image.open(image))
    for name in loaded.tasks:
        expected = expect(loaded, pixels, name).outputs
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"scene-{name}.npy"), expected)
        for stem in ("scene", "other"):
            with Image.open(tmp_path / "out" / f"{stem}-{name}.png") as drawn:
                assert drawn.mode == "RGB" and drawn.width > drawn.height / 4


@pytest.mark.parametrize("kind", ["normals", "edges"])
def test_statistics_of_other_kinds(edgemoe, runtime_bundle, tmp_path, kind):
    runtime_bundle.save(tmp_path / "all.emoe")
    model = runtime_bundle.model
    image = picture(tmp_path / "x.png", size=(model.image_width, model.image_height))
    text = edgemoe.ok("run", tmp_path / "all.emoe", image, "--task", kind, "--out", tmp_path / "out")
    with edgemoe_open("reference", runtime_bundle) as accelerator:
        found = accelerator.run(image, kind)
    if kind == "edges":
        assert f"edges  {found.mask.mean():.1%} of the pixels are edges" in text
    else:
        assert sum(float(share) for share in re.findall(r"([\d.]+)%", text)) == pytest.approx(100, abs=0.5)
        directions = {"left", "right", "up", "down", "away", "camera"}
        assert set(re.findall(r"facing (?:the )?(\w+)", text)) <= directions


def test_folders_and_equal_names(edgemoe, bundle, tmp_path):
    """Pictures of a folder; ``a/x.png`` and ``b/x.png`` both keep their results."""
    for name in ("a/x.png", "a/y.png", "b/x.png"):
        picture(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no picture, and not named as one")
    out = tmp_path / "out"
    text = edgemoe.ok("run", bundle, tmp_path / "a", tmp_path / "b" / "x.png", "--task", "depth", "--out", out)
    assert sum(line.endswith(".png") for line in text.splitlines()) == 3
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.npy"))
    assert names == ["a/x-depth.npy", "a/y-depth.npy", "b/x-depth.npy"]


def test_a_damaged_picture_of_a_folder_is_skipped(edgemoe, bundle, tmp_path):
    for name in ("a", "c"):
        picture(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    done = edgemoe("run", bundle, tmp_path / "in", "--task", "depth", "--out", tmp_path / "out")
    done.failed("1 of 3 pictures could not be read")
    assert "note: skipped: " in done.err and "b.png: not a readable image" in done.err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == ["a-depth.npy", "c-depth.npy"]
    for name in ("a", "c"):
        (tmp_path / "in" / f"{name}.png").unlink()
    edgemoe("run", bundle, tmp_path / "in", "--out", tmp_path / "out").refused("b.png: not a readable image")
    (tmp_path / "in" / "b.png").unlink()
    edgemoe("run", bundle, tmp_path / "in", "--out", tmp_path / "out").refused("no pictures in this folder")


def test_a_result_never_replaces_a_picture(edgemoe, bundle, tmp_path):
    first, second = picture(tmp_path / "scene.png"), picture(tmp_path / "scene-depth.png")
    content = second.read_bytes()
    edgemoe("run", bundle, first, second, "--out", tmp_path).refused("scene-depth.png is read and would be replaced")
    assert second.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["o[/x]", "o[red]z", "[bold]", "o\nx", ":smile:", "\x1b[31mred", "a\u202etxt", "\udcff"]
)
def test_names_are_no_markup(edgemoe, bundle, image, tmp_path, name):
    """Printed as they are; control characters as escapes."""
    text = edgemoe.ok("run", bundle, image, "--task", "depth", "--out", tmp_path / name)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert f"results are in {tmp_path}/{shown}\n" in text
    assert all(line.isprintable() for line in text.splitlines())
    edgemoe("run", bundle, tmp_path / name / "none.png").refused("none.png: there is no such file")


def test_run_chosen_tasks(edgemoe, bundle, image, tmp_path):
    assert edgemoe("run", bundle, image, "--task", "depth", "--out", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene-depth.npy", "scene-depth.png"]


def test_run_with_images_of_another_size(edgemoe, bundle, tmp_path):
    large = picture(tmp_path / "large.png", size=(32, 24))
    assert edgemoe("run", bundle, large, "--resize", "squeeze", "--task", "depth", "--out", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["large-depth.npy", "large-depth.png"]


def test_run_on_the_rtl_and_report(edgemoe, bundle, image, tmp_path):
    text = edgemoe.ok("run", bundle, image, "--device", "sim", "--out", tmp_path / "out")
    assert "94 tensors equal the integer reference, bit for bit\n" in text and "cycles, " in text
    assert sum(int(count) for count in re.findall(r"; (\d+) tensors equal\n", text)) == 94
    assert max(len(line) for line in text.splitlines()[1:-1]) <= 80
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    assert values["bit_exact"] and values["mismatches"] == 0 and values["tensors_compared"] == 94
    with edgemoe_open("reference", bundle) as accelerator:
        best = accelerator.run(image, "scene").topk()
    classes = [{"label": number, "name": name, "probability": share} for number, name, share in best]
    assert [one.get("classes") for one in values["per_inference"]] == [None, None, classes]
    shown = edgemoe("report", tmp_path / "out" / "report.json")
    assert shown.code == 0 and "1.moe" in shown.out and "bit for bit" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_differences_on_the_rtl_fail(edgemoe, bundle, image, tmp_path, monkeypatch):
    """A reference that is off by one in one value of one tensor."""
    original = reference.run

    def wrong(graph, picture, task, trace=None):
        outputs = original(graph, picture, task, trace)
        if trace is not None:
            trace["embed"] = trace["embed"].copy()
            trace["embed"][0, 0] += 1
        return outputs

    monkeypatch.setattr("edgemoe.jobs.picture_run.reference.run", wrong)
    done = edgemoe("run", bundle, image, "--task", "depth", "--device", "sim", "--out", tmp_path / "out")
    done.failed("1 values differ from the integer reference")
    assert "1 values DIFFER" in done.out and "bit for bit" not in done.out


def test_without_a_comparison_none_is_claimed(edgemoe, bundle, image, tmp_path):
    arguments = ["--task", "depth", "--device", "sim", "--no-trace", "--out", tmp_path / "out"]
    text = edgemoe.ok("run", bundle, image, *arguments)
    assert "cycles" in text and "equal" not in text
    assert "no tensor was compared" in edgemoe.ok("report", tmp_path / "out" / "report.json")


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
    edgemoe("run", bundle, image, "--resize", "stretch").refused("resize must be", "crop", "squeeze", "not 'stretch'")
    edgemoe("run", bundle, image, "--port", "x").refused("device reference has no option port")
    edgemoe("run", bundle, image, "--port", "x", "--device", "sim").refused("--device sim has no use for --port")
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
