"""Programs of the usual sizes of ViT on the command-level model: exact on every board's variant that takes them."""

import dataclasses

import numpy as np
import pytest

from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.compiler.cuts import HeadParts, query_groups
from edgemoe.compiler.fits import fits
from edgemoe.configs import find_config
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import MatMul, Mode, decode_program
from edgemoe_sim.command_model import POLICIES
from support.execution import execute
from support.random_graphs import random_graph, small_model
from support.sizes import LARGEST, SIZES

#: 101 tokens, five heads of 16 channels. Keys and values of four would fit; three tiles of 24 lanes make three heads'.
IN_PARTS = small_model(image_height=40, image_width=40, dim=80, heads=5)
FEW_ROWS = dataclasses.replace(PRESETS["pynq-z2"], name="few-rows", weight_depth=64, act_depth=1024, score_depth=128)


@pytest.mark.parametrize("lanes_n", [16, 24])
@pytest.mark.parametrize(
    ("options", "policy"),
    [
        *(({}, policy) for policy in POLICIES),
        ({"group_tokens": 128}, "loads early, results late"),
        ({"prefetch": False}, "loads early, results late"),
        ({"single_pass_softmax": False}, "loads early, results late"),
    ],
    ids=str,
)
def test_heads_in_parts(lanes_n, options, policy):
    """MoE and dense blocks, whose LayerNorms find their inputs in the other region then."""
    config = dataclasses.replace(FEW_ROWS, lanes_n=lanes_n)
    parts = HeadParts.of(IN_PARTS, config)
    assert [len(heads) for heads in parts.split(config.weight_depth)] == [3, 2]
    bundle = build_bundle(random_graph(IN_PARTS), config, CompilerOptions(**{"group_tokens": 16, **options}))
    for task in bundle.tasks:
        found, outputs, _, result = execute(bundle, task, policy)
        assert result.mismatches == 0, result.first_mismatch
        np.testing.assert_array_equal(found, outputs)


@pytest.mark.parametrize(
    ("heads", "unit_heads", "depth", "sizes"),
    [
        (6, 1, 100, [6]),
        (6, 1, 69, [3, 3]),
        (6, 1, 50, [3, 3]),
        (7, 1, 40, [3, 2, 2]),
        (6, 3, 69, [3, 3]),
        (6, 5, 69, [5, 1]),
        (12, 3, 69, [3, 3, 3, 3]),
    ],
)
def test_parts_are_few_and_whole(heads, unit_heads, depth, sizes):
    """Every part but the last has whole tiles of weights; together they are all heads, in order."""
    parts = HeadParts(16, 1, unit_heads, head_rows=10, unit_rows=10, heads=heads).split(depth)
    assert [len(part) for part in parts] == sizes
    assert [head for part in parts for head in part] == list(range(heads))


def test_fewer_queries_at_once_where_scores_have_few_rows():
    """Two groups' scores are held, so that P.V of one runs while Q.K of the next does."""
    config, options = find_config("pynq-z2-large"), CompilerOptions()
    for tokens, count in ((197, 19), (257, 15), (301, 13)):
        groups = query_groups(tokens, config, options)
        assert max(group.count for group in groups) <= count
        assert 2 * max(group.count for group in groups) * -(-tokens // config.lanes_k) <= config.score_depth
        assert sum(group.count for group in groups) == tokens
    assert max(group.count for group in query_groups(197, PRESETS["zcu102"], options)) == 29  # there is room


@pytest.mark.parametrize(("config", "size"), [(config, size) for config, sizes in LARGEST.items() for size in sizes])
def test_a_block_of_each_size(config, size):
    """Exact, and of 12 blocks it fits as well."""
    bundle = build_bundle(random_graph(SIZES[size]), find_config(config))
    assert fits(dataclasses.replace(SIZES[size], depth=12), bundle.config) == []
    found, outputs, _, result = execute(bundle, "classification", "loads early, results late")
    assert result.mismatches == 0, result.first_mismatch
    np.testing.assert_array_equal(found, outputs)


def test_a_part_has_its_own_keys():
    """ViT-S on pynq-z2-large: three heads' keys are written, used and then overwritten by the other three's."""
    bundle = build_bundle(random_graph(SIZES["vit-small-224"]), find_config("pynq-z2-large"))
    commands = [payload for _, payload in decode_program(bundle.task("classification").program)]
    modes = [payload.mode for payload in commands if isinstance(payload, MatMul)]
    stages = [mode for mode, after in zip(modes, modes[1:], strict=False) if mode != after]
    assert stages.count(Mode.KEY) > 1 and modes.index(Mode.SCORE) < len(modes) - 1 - modes[::-1].index(Mode.KEY)
