"""Edge-MoE's folders of raw weights: tokens are the original's, to the device; missing files are listed or filled."""

import re

import numpy as np
import pytest
from PIL import Image

from edgemoe.compiler import build_bundle
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models import float_reference
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.exact.functions import gelu
from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint
from edgemoe_models.importers.filled import mlp_size
from edgemoe_models.integer import reference
from edgemoe_models.ptq.quantize import quantize_checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed: importers are not compared with it")
from support.foreign_checkpoints import (  # noqa: E402
    DIM,
    EDGE_MOE,
    EXPERTS,
    GRID,
    HEADS,
    backbone,
    imported_tokens,
    picture,
    plain_tokens,
)

#: timm's and FastMoE's names of a block's parts, as Edge-MoE's files call them.
FILES = {
    "attn.qkv": "qkv",
    "attn.proj": "attn_proj",
    "mlp.fc": "fc",
    "mlp.experts.": "",
    "mlp.gate.0.w_gate": "w_gate_T_task0",
    "mlp.gate.1.w_gate": "w_gate_T_task1",
}


@pytest.fixture(scope="module")
def raw_files():
    """The miniature network by Edge-MoE's names, with an image and the plain evaluation's tokens for it."""
    tensors, image = backbone(GRID, 4, True), picture(8, 16)
    raw = {}
    for name, value in tensors.items():
        file = name.replace(".proj.", "_") if name.startswith("patch") else re.sub(r"^blocks\.(\d+)\.", r"l\1_", name)
        for theirs, ours in FILES.items():
            file = file.replace(theirs, ours)
        raw[file.replace(".", "_")] = value.T if file.endswith(("task0", "task1")) else value
    raw["pos_embed"] = tensors["pos_embed"][0].copy()
    raw["pos_embed"][0] += raw.pop("cls_token")[0, 0]
    pixels = image.transpose(2, 0, 1) / 256
    return raw | {"image": pixels, "l3_x_post_moe": plain_tokens(tensors, pixels, 0).numpy()}


@pytest.fixture
def folder(raw_files, tmp_path):
    path = tmp_path / "weights"
    path.mkdir()
    for name, value in raw_files.items():
        (path / f"{name}.float32.bin").write_bytes(np.ascontiguousarray(value, "<f4").tobytes())
    return path


def test_edge_moe_tokens_equal_the_raw_files(folder):
    imported = import_checkpoint(folder, EDGE_MOE)
    assert imported.unused == () and imported.config.eps == 1e-6
    assert np.array_equal(imported.image, picture(8, 16))
    for gate, task in enumerate(imported.config.tasks):
        wanted = plain_tokens(backbone(GRID, 4, True), imported.image.transpose(2, 0, 1) / 256, gate)
        np.testing.assert_allclose(imported_tokens(imported, imported.image, task.name), wanted, atol=1e-4)
    differences = re.search(r"differ by (\S+) on average, (\S+) at most", imported.notes[1])
    assert 0 < float(differences[1]) < float(differences[2]) < 1e-5


def test_edge_moe_at_another_image_size(folder):
    (folder / "image.float32.bin").unlink()
    imported = import_checkpoint(folder, ImportOptions(heads=HEADS, image_height=16, image_width=8))
    assert imported.config.grid == (4, 2) and any("resampled from 2 x 4 to 4 x 2" in note for note in imported.notes)
    assert any(note.startswith("assumed, because the file does not say: the exact GELU") for note in imported.notes)
    with pytest.raises(ImportRefused, match=re.escape("an image of 16 x 16 has 16 patches of 4 x 4")):
        import_checkpoint(folder, ImportOptions(heads=HEADS, image_height=16, image_width=16))


def test_edge_moe_from_the_command_line_to_the_device(edgemoe, folder, tmp_path):
    out = tmp_path / "new" / "edge-moe.safetensors"
    text = edgemoe.ok("import", folder, "--out", out, "--heads", HEADS)
    assert "8 x 16, patch 4, width 24, 4 blocks, 2 heads, MLP 40, 5 experts of 28 (top-2)" in text
    assert "heads drawn with seed 0" in text and "\nIt fits pynq-z2, zcu102, tiny, " in text
    image = np.asarray(Image.open(out.with_suffix(".png")))
    state, config = load_checkpoint(out)
    graph = quantize_checkpoint(out)
    bundle = build_bundle(graph, PRESETS["tiny"])
    outputs = reference.run(bundle.graph(), image, "depth")
    wanted = float_reference.forward(state, config, image[None], "depth")
    found = outputs * graph.heads["depth"].output_scale
    assert np.abs(found - wanted[0]).mean() < 0.1 * wanted.std()


def test_edge_moe_missing_files_are_listed_or_filled(folder):
    gone = ["l0_norm1_bias", "l1_htoh4_weight", "l3_h4toh_bias"]
    for name in gone:
        (folder / f"{name}.float32.bin").unlink()
    with pytest.raises(
        ImportRefused,
        match=re.escape(
            "missing: l0_norm1_bias.float32.bin [24], l1_htoh4_weight.float32.bin [5, 28, 24], "
            "l3_h4toh_bias.float32.bin [5, 24]"
        ),
    ):
        import_checkpoint(folder, EDGE_MOE)
    with pytest.raises(ImportRefused, match=re.escape("missing: l0_norm1_bias.float32.bin [24].")):
        import_checkpoint(folder, ImportOptions(heads=HEADS, fill_missing=4))
    (folder / "l0_norm1_bias.float32.bin").write_bytes(np.zeros(DIM, "<f4").tobytes())
    (folder / "extra.float32.bin").touch()
    filled = [import_checkpoint(folder, ImportOptions(heads=HEADS, fill_missing=seed)) for seed in (4, 4, 5)]
    first = filled[0]
    assert "drawn with seed 4 because they are missing: l1_htoh4_weight.float32.bin, l3_h4toh_bias" in first.notes[1]
    weights = [x.state["blocks.1.moe.w1"] for x in filled]
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])
    assert not first.state["blocks.3.moe.b2"].any()
    assert first.unused == ("extra.float32.bin", "l3_x_post_moe.float32.bin")


@pytest.mark.parametrize("gain", [0.2, 15.0])
def test_filled_experts_are_as_loud_as_dense_blocks(folder, gain, rng):
    """However loud norm2 is: GELU's inputs have unit size, and outputs that of the dense MLPs."""
    for name in ("l1_htoh4_weight", "l1_htoh4_bias", "l1_h4toh_weight", "l3_h4toh_weight"):
        (folder / f"{name}.float32.bin").unlink()
    gains = np.where(np.arange(DIM) % 5 == 0, gain, 1.0)
    (folder / "l1_norm2_weight.float32.bin").write_bytes(gains.astype("<f4").tobytes())
    state = import_checkpoint(folder, ImportOptions(heads=HEADS, fill_missing=4)).state
    rows = rng.standard_normal((2000, DIM))
    dense = [mlp_size(state, i, rows) for i in (0, 2)]
    for i in (1, 3):
        y = rows * state[f"blocks.{i}.norm2.weight"] + state[f"blocks.{i}.norm2.bias"]
        w1, b1, w2 = (state[f"blocks.{i}.moe.{part}"].astype(np.float64) for part in ("w1", "b1", "w2"))
        inputs = np.einsum("td,ehd->eth", y, w1) + b1[:, None]
        if i == 1:
            assert np.sqrt(np.square(inputs).mean()) == pytest.approx(1, rel=0.25)
        outputs = np.einsum("eth,edh->etd", gelu(inputs), w2)
        assert 0.7 * min(dense) < np.sqrt(np.square(outputs).mean()) < 1.4 * max(dense)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l2_qkv_bias", np.zeros(71), "l2_qkv_bias.float32.bin has 284 bytes, not 288 of float32 [72]"),
        ("image", np.zeros(5), "image.float32.bin has 20 bytes, not 1536"),
        ("image", np.full((3, 8, 16), 2.0), "image.float32.bin must lie in 0..1, not 2..2"),
        ("l1_norm1_weight", np.full(DIM, np.inf), "blocks.1.norm1.weight holds 24 NaN or infinite"),
        ("pos_embed", np.zeros((8, DIM)), "7 position embeddings"),
        ("l1_w_gate_T_task2", np.zeros((EXPERTS, DIM)), "gates of 3 tasks, but 2 are named: give --tasks"),
    ],
)
def test_edge_moe_refusals(folder, name, content, message):
    (folder / f"{name}.float32.bin").write_bytes(content.astype("<f4").tobytes())
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(folder, EDGE_MOE)


def test_command_line_refusal_is_one_line(edgemoe, folder, tmp_path):
    (folder / "patch_embed_bias.float32.bin").unlink()
    out = tmp_path / "x.safetensors"
    edgemoe("import", folder, "--out", out).refused(
        f"edgemoe: {folder}: ", "cannot be told without patch_embed_bias.float32.bin"
    )
    edgemoe("import", folder, "--out", out, "--format", "x").refused(
        "format must be one of timm, huggingface, torchvision, onnx, m3vit, edge-moe"
    )
