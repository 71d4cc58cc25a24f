"""Whether a model fits, from shapes alone: the same answer as the compiler's, all limits at once."""

import dataclasses
import re

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import edgemoe
from edgemoe.compiler import CompileError, CompilerOptions, compile_graph
from edgemoe.compiler.fits import commands_needed, fits
from edgemoe.configs import find_config
from edgemoe.fitting import advice, fit_table, require_fit
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_models.config import PRESETS as MODELS
from edgemoe_models.config import ModelConfig, TaskConfig
from support.random_graphs import random_graph, small_model

MORE = "ultra96v2-large, zcu102-large, zcu104, zcu104-large"
CLASSIFIER = (TaskConfig("classification", "classification", 1000),)


def vit(name: str, dim: int, size: int = 224, patch: int = 16, depth: int = 12) -> ModelConfig:
    """A ViT of the usual form."""
    return ModelConfig(name, size, size, patch, dim, depth, dim // 64, 4 * dim, 0, 0, 0, CLASSIFIER)


def compiles(model: ModelConfig, config: AcceleratorConfig, options: CompilerOptions, expert_bits: int) -> bool:
    try:
        compile_graph(random_graph(model, expert_bits=expert_bits), config, options)
    except CompileError:
        return False
    return True


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    """Small models of any form."""
    heads = draw(st.sampled_from([1, 2, 3, 5]))
    experts = draw(st.sampled_from([0, 0, 3, 9]))
    hidden = draw(st.sampled_from([0, 24, 200]))
    tasks = (
        TaskConfig("depth", "depth", 1, head_hidden=hidden, cells=draw(st.sampled_from([1, 4]))),
        TaskConfig(
            "label", "classification", draw(st.sampled_from([2, 300])), head_hidden=draw(st.sampled_from([0, 90]))
        ),
    )
    return small_model(
        image_height=4 * draw(st.integers(1, 6)),
        image_width=4 * draw(st.integers(1, 6)),
        dim=heads * draw(st.sampled_from([8, 12, 33])),
        heads=heads,
        depth=draw(st.integers(1, 5)),
        mlp_hidden=draw(st.sampled_from([16, 100, 400])),
        num_experts=experts,
        top_k=2 if experts else 0,
        expert_hidden=draw(st.sampled_from([20, 150])) if experts else 0,
        moe_every=draw(st.integers(1, 3)),
        tasks=tasks[: draw(st.integers(1, 2))],
    )


@st.composite
def configs(draw: st.DrawFn) -> AcceleratorConfig:
    """Configurations with scratchpads so small that any of them may be the one that is short."""
    return AcceleratorConfig(
        lanes_n=draw(st.sampled_from([8, 16])),
        weight_depth=draw(st.integers(8, 200)),
        act_depth=draw(st.integers(40, 900)),
        residual_depth=draw(st.integers(40, 900)),
        score_depth=draw(st.integers(2, 120)),
        param_depth=draw(st.sampled_from([16, 512])),
        max_dim=draw(st.sampled_from([64, 256])),
    )


@settings(max_examples=150)
@given(
    model=models(),
    config=configs(),
    group_tokens=st.sampled_from([4, 32]),
    attention_group=st.sampled_from([0, 0, 3]),
    moe_group=st.sampled_from([0, 0, 4]),
    expert_bits=st.sampled_from([8, 4]),
)
def test_what_fits_is_what_compiles(model, config, group_tokens, attention_group, moe_group, expert_bits):
    options = CompilerOptions(group_tokens=group_tokens, attention_group=attention_group, moe_group=moe_group)
    problems = fits(model, config, options, expert_bits)
    assert (not problems) == compiles(model, config, options, expert_bits), problems


@pytest.mark.parametrize("board", ["kr260", "kv260", "zcu102", "zcu104"])
def test_vit_small_fits(board):
    assert fits(vit("vit-small", 384), find_config(board)) == []


def test_all_limits_are_named_at_once():
    found = fits(vit("vit-base", 768), find_config("ultra96v2"))
    assert found == [
        "vit-base has dim 768, but ultra96v2 allows max_dim = 256: 512 too many",
        "197 tokens of 768 channels need 18912 rows of the residual scratchpad, which has 4736: 14176 too few",
        "two tensors of 197 tokens, 768 channels need 18912 rows of the activation scratchpad, which has 8192: "
        "10720 too few",
        "keys and values of 197 tokens for 5 of 12 heads, and the weights that make them, need 614 rows of the weight "
        "scratchpad, which has 512: 102 too few",
    ]


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (
            vit("vit-small", 384),
            f"It fits zcu102, aup-zu3-large, kr260, kr260-large, kv260, kv260-large, pynq-z2-large, {MORE}$",
        ),
        (vit("vit-base", 768), "It fits kr260-large, kv260-large, zcu102-large, zcu104-large$"),
        (
            vit("vit-tiny-384", 192, size=384),
            "It fits aup-zu3-large, kr260-large, kv260-large, ultra96v2-large, zcu102-large, zcu104-large$",
        ),
        (
            vit("vit-base-384", 768, size=384),
            "No board's .* e.g. kr260-large with residual_depth = 27696, act_depth = 27696 ",
        ),
        (vit("vit-huge", 1280), "No configuration takes it: .* no configuration allows more than 1024: 256 too many"),
        (vit("camera", 192, size=640), "No configuration takes it: camera has tokens 1601"),
    ],
)
def test_the_refusal_says_what_takes_the_model(model, match):
    with pytest.raises(CompileError, match=rf"{model.name} does not fit pynq-z2: .*\. {match}"):
        require_fit(model, PRESETS["pynq-z2"])


@pytest.mark.parametrize(
    "model", [vit("vit-base-384", 768, size=384), vit("vit-large", 1024, depth=24), vit("vit-448", 384, size=448)]
)
def test_the_configuration_that_is_suggested_takes_the_model(model):
    words = re.search(r"e\.g\. (\S+) with (.*?) \(", advice(model))
    assert words is not None
    changes = {field: int(value) for field, value in re.findall(r"(\w+) = (\d+)", words[2])}
    assert fits(model, dataclasses.replace(find_config(words[1]), **changes)) == []


def test_the_table_says_what_each_configuration_lacks():
    lines = fit_table(vit("vit-small", 384)).lines()
    assert lines[0].split() == ["configuration", "fits", "needs", "(has)"]
    text = "\n".join(lines)
    assert re.search(r"^zcu102 +yes *$", text, re.M) and re.search(r"^kv260 +yes *$", text, re.M)
    assert re.search(r"^ultra96v2 +no +max_dim 384 \(256\)\n +residual_depth 9,456 \(4,736\)", text, re.M)
    assert max(map(len, lines)) <= 80
    huge = "\n".join(fit_table(vit("vit-huge", 1280)).lines())
    assert huge.count("more than any configuration can have") == len(huge.splitlines()) - 1


def test_too_many_commands():
    model = dataclasses.replace(MODELS["m3vit-tiny"], depth=256)
    problems = fits(model, PRESETS["pynq-z2"])
    assert len(problems) == 2  # one a task
    assert re.fullmatch(r"task segmentation needs \d+ commands, the limit is 65535: \d+ too many", problems[0])


@pytest.mark.parametrize("moe_every", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 8])
def test_commands_are_counted_without_lowering_every_block(depth, moe_every):
    model = small_model(depth=depth, moe_every=moe_every)
    programs = compile_graph(random_graph(model), PRESETS["tiny"]).programs
    found = commands_needed(model, PRESETS["tiny"])
    assert found == {f"task {task}": len(program.commands) + 2 for task, program in programs.items()}


def test_a_checkpoint_is_refused_before_it_is_quantized(tmp_path, monkeypatch):
    model = vit("vit-base", 768, depth=1)
    path = tmp_path / "vit-base.safetensors"
    tensors = {"head": np.zeros(1, np.float32)}  # not even looked at
    safetensors.numpy.save_file(tensors, path, {"config": model.to_json()})
    with pytest.raises(CompileError, match="vit-base does not fit zcu102: .*It fits kr260-large, kv260-large"):
        edgemoe.compile(path, "zcu102")
