"""Whether a model fits, from shapes alone: the same answer as the compiler's, all limits at once."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemoe.compiler import CompileError, CompilerOptions, compile_graph
from edgemoe.compiler.fits import fits, shortages
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_models.config import ModelConfig, TaskConfig
from support.random_graphs import random_graph, small_model

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
