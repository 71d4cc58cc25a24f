"""M3ViT's checkpoints: tokens are the original's, from one file or one a process; refusals say what is missing."""

import re

import numpy as np
import pytest

from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed: importers are not compared with it")
from support.foreign_checkpoints import (  # noqa: E402
    DIM,
    EXPERT_HIDDEN,
    EXPERTS,
    GRID,
    HIDDEN,
    M3VIT,
    backbone,
    imported_tokens,
    m3vit_tensors,
    normalised,
    picture,
    plain_tokens,
    save_torch,
)


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
        (
            {},
            {"image_height": 8, "image_width": 12},
            "make no square, so they cannot be resampled to 2 x 3",
        ),
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


def test_m3vit_positions_of_another_grid(tmp_path):
    """Trained at 16 x 8 pixels, and run at 8 x 16: as many patches in another form."""
    path = save_torch(tmp_path / "m.pth", m3vit_tensors())
    given = {**vars(M3VIT), "trained_grid": "4x2", "activation": "gelu", "eps": 1e-6}
    turned, plain = import_checkpoint(path, ImportOptions(**given)), import_checkpoint(path, M3VIT)
    assert not np.array_equal(turned.state["pos_embed"], plain.state["pos_embed"])
    assert any("resampled from 4 x 2 to 2 x 4 patches, bicubic (as given)" in note for note in turned.notes)
    assert any("the exact GELU (--activation), LayerNorm's eps 1e-06 (--eps)" in note for note in plain.notes)
    assert not any("assumed" in note for note in turned.notes)
