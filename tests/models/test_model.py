import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgemoe_models.config import ACTIVATIONS, PRESETS, ModelConfig, TaskConfig  # noqa: E402
from edgemoe_models.m3vit import ACTIVATION_FUNCTIONS, M3ViT, balance_loss, select_experts  # noqa: E402

SMALL = ModelConfig(
    name="small",
    image_height=8,
    image_width=16,
    patch=4,
    dim=16,
    depth=4,
    heads=2,
    mlp_hidden=24,
    num_experts=4,
    top_k=2,
    expert_hidden=12,
    tasks=(
        TaskConfig("segmentation", "segmentation", channels=5, cells=2),
        TaskConfig("depth", "depth", channels=1, head_hidden=8, cells=4),
        TaskConfig("scene", "classification", channels=3),
    ),
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = M3ViT(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no zero biases, no equal gates
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 16, generator=torch.Generator().manual_seed(1))


def test_ties_go_to_the_lower_expert():
    logits = torch.tensor([[1.0, 3, 3, 0], [0, 0, 0, 0], [2, 1, 1, 1], [0, 5, 0, 5]])
    scores, chosen = select_experts(logits, 2)
    assert chosen.tolist() == [[1, 2], [0, 1], [0, 1], [1, 3]]
    assert torch.equal(scores, logits.softmax(1).gather(1, chosen))


def test_scores_are_not_renormalised():
    scores, _ = select_experts(torch.zeros(1, 16), 2)
    assert scores.tolist() == [[0.0625, 0.0625]]


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_sparse_experts_equal_dense(model, top_k):
    moe = model.blocks[1].moe
    moe.top_k = top_k
    tokens = torch.randn(2, 9, 16)
    logits = tokens.view(-1, 16) @ moe.gate["depth"].t()
    hidden = torch.nn.functional.gelu(torch.einsum("nd,ehd->neh", tokens.view(-1, 16), moe.w1) + moe.b1)
    every = torch.einsum("neh,edh->ned", hidden, moe.w2) + moe.b2
    kept = logits.softmax(1) * (logits >= logits.topk(top_k).values[:, -1:])
    dense = (kept[..., None] * every).sum(1).view_as(tokens)
    torch.testing.assert_close(moe(tokens, "depth"), dense, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_experts_all_at_once_are_the_chosen_ones(kind):
    """What training on a GPU computes is what everything else does, whatever the activation."""
    torch.manual_seed(0)
    model = M3ViT(dataclasses.replace(SMALL, activation=kind))
    moe, tokens = model.blocks[1].moe, torch.randn(12, 16)
    scores, chosen = select_experts(tokens @ moe.gate["depth"].t(), 2)
    found = [compute(tokens, scores, chosen) for compute in (moe.experts, moe.all_experts)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    assert model.heads["depth"].activate is model.blocks[0].mlp.activate is moe.activate is ACTIVATION_FUNCTIONS[kind]


def test_an_expert_that_nobody_visits_costs_nothing(model):
    moe = model.blocks[1].moe
    tokens = torch.randn(5, 16)
    chosen = torch.tensor([[2, 0]] * 5)
    with torch.no_grad():
        moe.w1[1] = float("nan")
    assert torch.isfinite(moe.experts(tokens, torch.full((5, 2), 0.5), chosen)).all()


def test_a_task_depends_on_its_own_gate_and_head_only(model, images):
    before = {task.name: model(images, task.name) for task in SMALL.tasks}
    with torch.no_grad():
        model.blocks[1].moe.gate["depth"].neg_()
        model.heads["depth"].fc1.weight.neg_()
    after = {task.name: model(images, task.name) for task in SMALL.tasks}
    assert torch.equal(before["segmentation"], after["segmentation"])
    assert torch.equal(before["scene"], after["scene"])
    assert not torch.equal(before["depth"], after["depth"])


def test_patches_are_flattened_channel_row_column(model, images):
    with torch.no_grad():
        model.patch_embed.bias.zero_()
        model.pos_embed.zero_()
        model.patch_embed.weight.zero_()
        model.patch_embed.weight[0, 2 * 16 + 1 * 4 + 3] = 1  # channel 2, row 1, column 3
    tokens = model.tokens(images)
    assert torch.equal(tokens[:, 1:, 0].view(3, 2, 4), images[:, 2, 1::4, 3::4])
    assert torch.equal(tokens[:, 0], model.cls_token.expand(3, -1))


def test_head_outputs_are_ordered_cell_row_cell_column_channel(model, images):
    head = model.heads["segmentation"]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.arange(20.0))
    raw = model.raw(images, "segmentation")
    assert raw.shape == (3, *SMALL.output_shape("segmentation"))
    for y, x, channel in [(0, 0, 0), (0, 1, 3), (1, 0, 4), (1, 1, 2)]:
        assert (raw[:, channel, y::2, x::2] == (y * 2 + x) * 5 + channel).all()


def test_output_shapes(model, images):
    assert model(images, "segmentation").shape == (3, 5, 8, 16)  # upsampled from 4 x 8
    assert model(images, "depth").shape == (3, 1, 8, 16)
    assert model(images, "scene").shape == (3, 3)


def test_images_of_a_batch_are_independent(model, images):
    together = model(images, "depth")
    for index in range(3):
        torch.testing.assert_close(model(images[index : index + 1], "depth")[0], together[index])


def test_classification_sees_the_cls_token_only(model, images):
    seen = []
    model.heads["scene"].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    model(images, "scene")
    assert seen == [(3, 16)]


def test_balance_loss_prefers_even_use():
    generator = torch.Generator().manual_seed(0)
    even = torch.randn(4000, 8, generator=generator)
    skewed = even + torch.arange(8.0)
    assert balance_loss(even, even, 2, 0.125) < 0.01
    assert balance_loss(skewed, skewed, 2, 0.125) > 1


def test_training_noise_and_balance_loss(model, images):
    model.train()
    first, second = model(images, "depth"), model(images, "depth")
    assert not torch.equal(first, second)
    loss = model.balance_loss()
    loss.backward()
    assert loss > 0
    assert model.blocks[1].moe.gate["depth"].grad.abs().sum() > 0
    assert model.blocks[1].moe.gate["segmentation"].grad is None


def test_state_dict_keys_are_the_documented_ones(model):
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    d, t, e, h = 16, 9, 4, 12
    expected = {
        "patch_embed.weight": (d, 48),
        "patch_embed.bias": (d,),
        "cls_token": (d,),
        "pos_embed": (t, d),
        "norm.weight": (d,),
        "norm.bias": (d,),
        "heads.segmentation.weight": (20, d),
        "heads.segmentation.bias": (20,),
        "heads.depth.fc1.weight": (8, d),
        "heads.depth.fc1.bias": (8,),
        "heads.depth.fc2.weight": (16, 8),
        "heads.depth.fc2.bias": (16,),
        "heads.scene.weight": (3, d),
        "heads.scene.bias": (3,),
    }
    for i in range(4):
        block = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            expected |= {f"{block}.{norm}.weight": (d,), f"{block}.{norm}.bias": (d,)}
        expected |= {f"{block}.attn.qkv.weight": (3 * d, d), f"{block}.attn.qkv.bias": (3 * d,)}
        expected |= {f"{block}.attn.proj.weight": (d, d), f"{block}.attn.proj.bias": (d,)}
        if i % 2 == 0:
            expected |= {f"{block}.mlp.fc1.weight": (24, d), f"{block}.mlp.fc1.bias": (24,)}
            expected |= {f"{block}.mlp.fc2.weight": (d, 24), f"{block}.mlp.fc2.bias": (d,)}
        else:
            expected |= {f"{block}.moe.gate.{task.name}": (e, d) for task in SMALL.tasks}
            expected |= {f"{block}.moe.w1": (e, h, d), f"{block}.moe.b1": (e, h)}
            expected |= {f"{block}.moe.w2": (e, d, h), f"{block}.moe.b2": (e, d)}
    assert shapes == expected


@pytest.mark.parametrize(("preset", "millions"), [("m3vit-micro", 1.62), ("m3vit-tiny", 18.01), ("deit-tiny", 5.72)])
def test_parameters_of_the_presets(preset, millions):
    with torch.device("meta"):
        model = M3ViT(dataclasses.replace(PRESETS[preset]))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_refusals(model, images):
    with pytest.raises(ValueError, match=r"images must be \[B, 3, 8, 16\], not \[3, 3, 8, 8\]"):
        model(images[..., :8], "depth")
    with pytest.raises(ValueError, match="task must be one of .*, not 'edges'"):
        model(images, "edges")


def test_attention_equals_its_definition(model):
    attention = model.blocks[0].attn
    x = torch.randn(2, 9, 16)
    q, k, v = (part.view(2, 9, 2, 8).transpose(1, 2) for part in attention.qkv(x).split(16, 2))
    weights = (q @ k.transpose(2, 3) / np.sqrt(8)).softmax(3)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 9, 16))
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)
