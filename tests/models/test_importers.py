"""Importers: the imported model computes what a plain evaluation of the foreign tensors does; refusals name all."""

import re
from fractions import Fraction

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from edgemoe.compiler import build_bundle
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models import float_reference
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint
from edgemoe_models.importers.common import IMAGENET_MEAN, IMAGENET_STD
from edgemoe_models.importers.timm import resample
from edgemoe_models.integer import reference
from edgemoe_models.ptq.quantize import quantize_checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed: importers are not compared with it")
F = torch.nn.functional

DIM, HEADS, PATCH, HIDDEN, EXPERTS, EXPERT_HIDDEN, CLASSES = 24, 2, 4, 40, 5, 28, 6
GRID = (2, 4)  # Edge-MoE's images are twice as wide as high
M3VIT = ImportOptions(
    heads=HEADS, top_k=2, tasks="semseg=segmentation:5,depth", seed_heads=3, image_height=8, image_width=16
)
EDGE_MOE = ImportOptions(heads=HEADS)


# --- Miniature checkpoints, and their plain evaluation ----------------------------------------------------------------


def backbone(grid, depth, experts_in_odd):
    """Tensors of a ViT under timm's names, float32; FastMoE's experts and a gate for each of two tasks if wanted."""
    rng = np.random.default_rng(7)

    def draw(*shape, deviation=None):
        deviation = shape[-1] ** -0.5 if deviation is None else deviation
        return (rng.standard_normal(shape) * deviation).astype(np.float32)

    tensors = {
        "cls_token": draw(1, 1, DIM, deviation=0.3),
        "pos_embed": draw(1, 1 + grid[0] * grid[1], DIM, deviation=0.3),
        "patch_embed.proj.weight": draw(DIM, 3, PATCH, PATCH, deviation=0.3),
        "patch_embed.proj.bias": draw(DIM),
    }
    for i in range(depth):
        linears = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
        if experts_in_odd and i % 2:
            shapes = {"htoh4": (EXPERTS, EXPERT_HIDDEN, DIM), "h4toh": (EXPERTS, DIM, EXPERT_HIDDEN)}
            linears |= {f"mlp.experts.{name}": shape for name, shape in shapes.items()}
            for t in range(2):
                tensors[f"blocks.{i}.mlp.gate.{t}.w_gate"] = draw(DIM, EXPERTS, deviation=0.5)
        else:
            linears |= {"mlp.fc1": (HIDDEN, DIM), "mlp.fc2": (DIM, HIDDEN)}
        for name, shape in linears.items():
            tensors |= {f"blocks.{i}.{name}.weight": draw(*shape), f"blocks.{i}.{name}.bias": draw(*shape[:-1])}
        for name in ("norm1", "norm2"):
            tensors |= {f"blocks.{i}.{name}.weight": 1 + draw(DIM), f"blocks.{i}.{name}.bias": draw(DIM)}
    return tensors


def timm_tensors():
    rng = np.random.default_rng(8)
    head = {
        "head.weight": rng.standard_normal((CLASSES, DIM)),
        "head.bias": rng.standard_normal(CLASSES),
        "norm.weight": 1 + 0.1 * rng.standard_normal(DIM),
        "norm.bias": rng.standard_normal(DIM),
    }
    return backbone((3, 3), 2, False) | {name: value.astype(np.float32) for name, value in head.items()}


def plain_tokens(tensors, pixels, gate=None):
    """Tokens [T, D] after the last block, of normalised pixels [3, H, W], straight from the foreign tensors."""
    t = {name: torch.from_numpy(value).double() for name, value in tensors.items()}
    x = F.conv2d(
        torch.from_numpy(pixels).double()[None], t["patch_embed.proj.weight"], t["patch_embed.proj.bias"], stride=PATCH
    )
    x = torch.cat([t["cls_token"], x.flatten(2).transpose(1, 2)], 1)[0] + t["pos_embed"][0]

    def linear(x, name, index=...):
        return F.linear(x, t[f"{name}.weight"][index], t[f"{name}.bias"][index])

    i = 0
    while (block := f"blocks.{i}") + ".norm1.weight" in t:
        y = F.layer_norm(x, (DIM,), t[f"{block}.norm1.weight"], t[f"{block}.norm1.bias"], 1e-6)
        q, k, v = linear(y, f"{block}.attn.qkv").view(-1, 3, HEADS, DIM // HEADS).permute(1, 2, 0, 3)
        p = (q @ k.transpose(1, 2) * (DIM // HEADS) ** -0.5).softmax(-1)
        x = x + linear((p @ v).transpose(0, 1).reshape(-1, DIM), f"{block}.attn.proj")
        y = F.layer_norm(x, (DIM,), t[f"{block}.norm2.weight"], t[f"{block}.norm2.bias"], 1e-6)
        if f"{block}.mlp.fc1.weight" in t:
            x = x + linear(F.gelu(linear(y, f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        else:
            scores, chosen = (y @ t[f"{block}.mlp.gate.{gate}.w_gate"]).softmax(-1).topk(2)
            every = torch.stack(
                [
                    linear(F.gelu(linear(y, f"{block}.mlp.experts.htoh4", e)), f"{block}.mlp.experts.h4toh", e)
                    for e in range(EXPERTS)
                ],
                1,
            )
            x = x + (every.gather(1, chosen[..., None].expand(-1, -1, DIM)) * scores[..., None]).sum(1)
        i += 1
    return x


def picture(height, width, seed=5):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def normalised(image, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    return ((image / 255 - mean) / std).transpose(2, 0, 1)


def imported_tokens(imported, image, task):
    seen = {}
    float_reference.forward(imported.state, imported.config, image[None], task, seen)
    return seen[f"blocks.{imported.config.depth - 1}.residual2"]


@pytest.fixture
def timm_file(tmp_path):
    path = tmp_path / "vit.safetensors"
    safetensors.numpy.save_file(timm_tensors(), path)
    return path


def save_torch(path, tensors, nest=None):
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    torch.save({nest: state} if nest else state, path)
    return path


# --- timm / DeiT ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std"), [(None, None), ((0.5, 0.5, 0.5), (0.5, 0.4, 0.6))])
def test_timm_logits_equal_the_original_on_normalised_pixels(timm_file, mean, std):
    imported = import_checkpoint(timm_file, ImportOptions(heads=HEADS, mean=mean, std=std))
    image, tensors = picture(12, 12), timm_tensors()
    pixels = normalised(image, mean or IMAGENET_MEAN, std or IMAGENET_STD)
    x = F.layer_norm(plain_tokens(tensors, pixels), (DIM,), eps=1e-6)[0].numpy()
    logits = (x * tensors["norm.weight"] + tensors["norm.bias"]) @ tensors["head.weight"].T + tensors["head.bias"]
    found = float_reference.forward(imported.state, imported.config, image[None], "classification")[0, 0]
    np.testing.assert_allclose(found, logits, atol=1e-4)


@pytest.mark.parametrize("nest", [None, "model", "state_dict"])
def test_torch_files_equal_safetensors(timm_file, tmp_path, nest):
    tensors = {f"module.{name}": value for name, value in timm_tensors().items()}
    path = save_torch(tmp_path / "vit.pth", tensors, nest)
    first, second = (import_checkpoint(file, ImportOptions(heads=HEADS)) for file in (timm_file, path))
    assert first.config == second.config
    assert all(np.array_equal(value, second.state[name]) for name, value in first.state.items())


@pytest.mark.parametrize("size", [(3, 5), (9, 11)])
def test_resampling_equals_torch(size):
    values = np.random.default_rng(1).standard_normal((7, 7, 3))
    wanted = F.interpolate(torch.from_numpy(values).permute(2, 0, 1)[None], size, mode="bicubic", antialias=True)
    found = resample(resample(values, size[0]).swapaxes(0, 1), size[1]).swapaxes(0, 1)
    np.testing.assert_allclose(found, wanted[0].permute(1, 2, 0).numpy(), atol=1e-12)


def test_timm_at_another_image_size(timm_file):
    imported = import_checkpoint(timm_file, ImportOptions(heads=HEADS, image_height=8, image_width=20))
    assert imported.config.grid == (2, 5) and imported.state["pos_embed"].shape == (11, DIM)
    assert "resampled from 3 x 3 to 2 x 5" in imported.notes[1]


def changed(path, changes):
    """The timm checkpoint with tensors replaced, or removed where None."""
    tensors = {name: value for name, value in (timm_tensors() | changes).items() if value is not None}
    safetensors.numpy.save_file(tensors, path)
    return path


def test_all_problems_are_in_one_message(tmp_path):
    wrong = {
        "blocks.1.norm1.bias": None,
        "blocks.0.attn.qkv.bias": np.zeros(3, np.float32),
        "blocks.0.ls1.gamma": np.zeros(DIM, np.float32),
    }
    with pytest.raises(
        ImportRefused,
        match=re.escape(
            "the checkpoint does not fit. missing: blocks.1.norm1.bias [24]. of a wrong shape: blocks.0.attn.qkv.bias "
            "must be [72], not [3]. not understood: blocks.0.ls1.gamma"
        ),
    ):
        import_checkpoint(changed(tmp_path / "a.safetensors", wrong), ImportOptions(heads=HEADS))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"dist_token": np.zeros((1, 1, DIM), np.float32)}, {}, "a distilled DeiT has a second class token"),
        ({"head.weight": None}, {}, "no classification head"),
        ({"norm.bias": np.full(DIM, np.nan, np.float32)}, {}, "norm.bias holds 24 NaN or infinite values"),
        ({"pos_embed": np.zeros((1, 8, DIM), np.float32)}, {}, "7 position embeddings besides the class token's"),
        ({}, {"heads": None}, "the width 24 is no multiple of 64"),
        ({}, {"heads": 5}, "--heads must divide the width 24, not be 5"),
        ({}, {"image_height": 12}, "--image-height and --image-width go together"),
        ({}, {"image_height": 13, "image_width": 12}, "must be a multiple of patch (4), not 13"),
        ({}, {"std": (0.0, 1.0, 1.0)}, "--std positive"),
        ({}, {"top_k": 2, "fill_missing": 1}, "the format timm has no use for --fill-missing, --top-k"),
        ({"patch_embed.proj.weight": None, "patch_embed.weight": np.zeros(3)}, {}, "checkpoint of edgemoe already"),
        ({"patch_embed.proj.weight": None}, {}, "the names are neither timm's nor M3ViT's"),
    ],
)
def test_timm_refusals(tmp_path, changes, options, message):
    path = changed(tmp_path / "a.safetensors", changes)
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(path, ImportOptions(**({"heads": HEADS} | options)))


def test_files_with_objects_or_damage_are_refused(tmp_path):
    torch.save({"state_dict": {}, "epoch": Fraction(1, 2)}, tmp_path / "objects.pth")
    (tmp_path / "text.pth").write_text("this is no checkpoint")
    (tmp_path / "text.safetensors").write_text("this is no checkpoint")
    for name, message in (
        ("objects.pth", "could run code"),
        ("text.pth", "no readable torch file"),
        ("text.safetensors", "not a safetensors file"),
        ("none.pth", "no such file or folder"),
    ):
        with pytest.raises(ImportRefused, match=message):
            import_checkpoint(tmp_path / name, ImportOptions())


# --- M3ViT ------------------------------------------------------------------------------------------------------------


def m3vit_tensors():
    """As MultiTaskModel under data parallelism saves it: prefixes, and decoders besides."""
    decoders = {f"decoders.{task}.conv_0.weight": np.zeros((2, DIM, 3, 3), np.float32) for task in ("semseg", "depth")}
    inner = {f"backbone.{name}": value for name, value in backbone(GRID, 4, True).items()}
    return {f"module.{name}": value for name, value in (inner | decoders).items()}


@pytest.mark.parametrize(("gate", "task"), enumerate(["semseg", "depth"]))
def test_m3vit_tokens_equal_the_original(tmp_path, gate, task):
    imported = import_checkpoint(save_torch(tmp_path / "m.pth.tar", m3vit_tensors(), "state_dict"), M3VIT)
    config, image = imported.config, picture(8, 16)
    assert (config.num_experts, config.expert_hidden, config.mlp_hidden) == (EXPERTS, EXPERT_HIDDEN, HIDDEN)
    wanted = plain_tokens(backbone(GRID, 4, True), normalised(image), gate)
    np.testing.assert_allclose(imported_tokens(imported, image, task), wanted, atol=1e-4)
    assert imported.unused == ("decoders.depth.conv_0.weight", "decoders.semseg.conv_0.weight")
    assert "heads drawn with seed 3" in imported.notes[1]


def test_m3vit_folder_of_ranks_equals_one_file(tmp_path):
    tensors = m3vit_tensors()
    whole = import_checkpoint(save_torch(tmp_path / "m.pth", tensors), M3VIT)
    folder = tmp_path / "ranks"
    folder.mkdir()
    for rank, experts in enumerate((slice(0, 2), slice(2, EXPERTS))):
        part = {
            name: value[experts] if ".experts." in name else value
            for name, value in tensors.items()
            if rank == 0 or ".experts." in name
        }
        save_torch(folder / f"{rank}.pth", part, "state_dict")
    joined = import_checkpoint(folder, M3VIT)
    assert all(np.array_equal(value, joined.state[name]) for name, value in whole.state.items())
    (folder / "1.pth").rename(folder / "2.pth")
    with pytest.raises(ImportRefused, match=re.escape("missing: 1.pth")):
        import_checkpoint(folder, M3VIT)


def test_m3vit_one_gate_for_all_tasks(tmp_path):
    tensors = {
        name.replace(".gate.0.", ".gate."): value
        for name, value in backbone(GRID, 2, True).items()
        if ".gate.1." not in name
    }
    imported = import_checkpoint(save_torch(tmp_path / "m.pth", tensors), M3VIT)
    gates = [imported.state[f"blocks.1.moe.gate.{task}"] for task in ("semseg", "depth")]
    assert np.array_equal(gates[0], gates[1]) and np.array_equal(gates[0], tensors["blocks.1.mlp.gate.w_gate"].T)


@pytest.mark.parametrize(
    ("extra", "options", "message"),
    [
        ({}, {"seed_heads": None}, "only the backbone can be imported"),
        ({}, {"top_k": None}, "how many experts a token visits and how many attention heads there are: give --top-k"),
        ({}, {"heads": None}, "give --top-k and --heads (moe_top_k and num_heads of its training)"),
        ({}, {"tasks": None}, "(it has the decoders depth, semseg): give --tasks in the order of its 2 gates"),
        ({}, {"tasks": "depth"}, "2 gates a block, but --tasks names 1 tasks"),
        ({}, {"tasks": "depth,parts"}, "not 'parts'"),
        ({}, {"image_height": 8, "image_width": 12}, "does not have 8 patches"),
        ({"blocks.1.mlp.gate.0.w_noise": np.zeros((DIM, EXPERTS), np.float32)}, {}, "renormalise their scores"),
        ({"gate_task_represent.fc1.weight": np.zeros((3, 3), np.float32)}, {}, "see a task embedding"),
        ({"blocks.1.mlp.gate.3.w_gate": np.zeros((DIM, EXPERTS), np.float32)}, {}, "numbered from 0, not 0, 1, 3"),
        ({"blocks.2.mlp.experts.htoh4.weight": np.zeros((5, 2, DIM), np.float32)}, {}, "not the blocks [1, 2, 3]"),
    ],
)
def test_m3vit_refusals(tmp_path, extra, options, message):
    path = save_torch(tmp_path / "m.pth", m3vit_tensors() | extra)
    given = {**vars(M3VIT), "name": "imported", **options}
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(path, ImportOptions(**given))


# --- Edge-MoE ---------------------------------------------------------------------------------------------------------

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


def test_edge_moe_from_the_command_line_to_the_device(edgemoe, folder, tmp_path):
    out = tmp_path / "new" / "edge-moe.safetensors"
    text = edgemoe.ok("import", folder, "--out", out, "--heads", HEADS)
    assert "8 x 16, patch 4, width 24, 4 blocks, 2 heads, MLP 40, 5 experts of 28 (top-2)" in text
    assert "heads drawn with seed 0" in text
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
    edgemoe("import", folder, "--out", out, "--format", "x").refused("format must be one of timm, m3vit, edge-moe")
