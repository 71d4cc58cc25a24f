"""Naive forms of the techniques: exact on the command-level model, at the price that they should have."""

import dataclasses

import numpy as np
import pytest

from edgemoe.compiler import CompilerOptions, build_bundle, compile_graph
from edgemoe.studies.ablation import (
    VARIANTS,
    ablation_table,
    compile_variant,
    half_array,
    one_port,
    run_ablation,
    split_arrays,
)
from edgemoe.studies.bench import bench_row, bench_table, reloaded_bytes
from edgemoe.studies.gelu_forms import compare_gelu
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import Load, MatMul, Memory
from edgemoe_sim.command_model import POLICIES
from support.random_graphs import random_graph, small_model
from tests.sw.test_compiler import execute

GRAPH = random_graph(small_model())
NAIVE = {
    "token by token": CompilerOptions(group_tokens=4, moe_group=1, chunk_fraction=0.5),
    "three tokens": CompilerOptions(group_tokens=4, moe_group=3),
    "three passes": CompilerOptions(group_tokens=4, single_pass_softmax=False),
    "query by query": CompilerOptions(group_tokens=4, attention_group=1),
    "five queries": CompilerOptions(group_tokens=4, attention_group=5),
    "GELU pass": CompilerOptions(group_tokens=4, fused_activation=False),
    "all": CompilerOptions(
        group_tokens=4,
        moe_group=1,
        attention_group=1,
        single_pass_softmax=False,
        fused_activation=False,
        prefetch=False,
    ),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("variant", NAIVE)
def test_naive_forms_are_exact_in_every_order(variant, policy):
    bundle = build_bundle(GRAPH, PRESETS["pynq-z2"], NAIVE[variant])
    for task in bundle.tasks:
        found, outputs, _, result = execute(bundle, task, policy)
        assert result.mismatches == 0, result.first_mismatch
        np.testing.assert_array_equal(found, outputs)


def loads(options, memory=None):
    """Bytes that a program loads, all or into one memory, if every expert is used."""
    config = PRESETS["pynq-z2"]
    program = compile_graph(GRAPH, config, options).programs["segmentation"]
    return sum(
        command.payload.rows * config.row_bytes[command.payload.memory.name]
        for command in program.commands
        if isinstance(command.payload, Load) and memory in (None, command.payload.memory)
    )


def matmuls(options):
    program = compile_graph(GRAPH, PRESETS["pynq-z2"], options).programs["segmentation"]
    return [command.payload for command in program.commands if isinstance(command.payload, MatMul)]


@pytest.mark.parametrize("size", [1, 3, 13])
def test_experts_are_fetched_for_every_group(size):
    model, c = GRAPH.config, PRESETS["pynq-z2"]
    block = next(block for block in GRAPH.blocks if block.is_moe)
    tiles = [
        (-(-linear.outputs // c.lanes_n), -(-linear.inputs // c.lanes_k))
        for linear in (*block.expert_fc1, *block.expert_fc2)
    ]
    once = sum(rows * steps * c.row_bytes["WEIGHT"] for rows, steps in tiles)
    groups = -(-model.num_tokens // size)
    more = loads(CompilerOptions(moe_group=size), Memory.WEIGHT) - loads(CompilerOptions(), Memory.WEIGHT)
    assert more == (groups - 1) * once * sum(model.is_moe(i) for i in range(model.depth))


@pytest.mark.parametrize("size", [1, 4, 13])
def test_keys_and_values_are_fetched_for_every_group_of_queries(size):
    model, c = GRAPH.config, PRESETS["pynq-z2"]
    padded = -(-model.head_dim // c.lanes_k) * c.lanes_k
    keys = -(-model.num_tokens // c.lanes_n) * (padded // c.lanes_k)
    values = -(-padded // c.lanes_n) * -(-model.num_tokens // c.lanes_k)
    more = loads(CompilerOptions(attention_group=size)) - loads(CompilerOptions())
    groups = -(-model.num_tokens // size)
    assert more == model.depth * model.heads * groups * (keys + values) * c.row_bytes["WEIGHT"]


def test_extra_passes_read_everything_once_and_write_nothing():
    model, product = GRAPH.config, matmuls(CompilerOptions())
    assert all(payload.channels for payload in product)
    three = [p for p in matmuls(CompilerOptions(single_pass_softmax=False)) if not p.channels]
    assert sum(p.tokens for p in three) == 2 * model.depth * model.heads * model.num_tokens
    unfused = [p for p in matmuls(CompilerOptions(fused_activation=False)) if not p.channels]
    moe = sum(model.is_moe(i) for i in range(model.depth))
    queued = [p for p in unfused if p.use_queue]
    assert len(queued) == moe * model.num_experts
    hidden = sum(p.tokens for p in unfused if not p.use_queue)
    assert hidden == (model.depth - moe) * model.num_tokens + model.num_patches  # dense layers, and the head's
    assert all(p.tiles == 1 for p in three + unfused)
    assert loads(CompilerOptions(single_pass_softmax=False, fused_activation=False)) == loads(CompilerOptions())


def test_delta_table_is_as_exact_as_one_of_eight_times_its_size():
    rows = compare_gelu(((0.0083, 1), (0.0125, 2)))
    for shift in (1, 2):
        delta, full, small = (
            [row for row in rows if row["shift"] == shift and row["form"].startswith(form)][0]
            for form in ("delta", "values, 12", "values, 9")
        )
        assert delta["table_bits"] == small["table_bits"] == full["table_bits"] // 8
        assert full["largest"] <= 0.5 < delta["largest"] <= 0.75 < small["largest"]


def test_two_accelerators_in_one_process():
    """Their libraries share no static data: each keeps its cycles, whatever ran before it."""
    names = ["tiny", "pynq-z2", "tiny"]
    first, other, again = (bench_row(GRAPH, PRESETS[name]) for name in names)  # each equals the reference
    assert first["cycles"] == again["cycles"] != other["cycles"]
    assert first["dram_bytes"] == again["dram_bytes"]


def test_variants_on_the_rtl():
    variants = [VARIANTS[0], *(variant for variant in VARIANTS if variant.technique in (1, 2, 3, 5))]
    result = run_ablation(GRAPH, PRESETS["tiny"], lambda what: None, variants)
    product = result["rows"][0]
    for row in result["rows"][1:]:
        assert row["cycles"] > product["cycles"], row["variant"]
        used, least = (one["dram_bytes"] - one["wasted_bytes"] for one in (row, product))
        assert (used > 1.1 * least) == (row["technique"] in (1, 5)), row["variant"]
    assert len(ablation_table(result).rows) == len(variants)


def test_a_third_of_the_array_keeps_its_memory():
    wide = dataclasses.replace(PRESETS["zcu102"], lanes_k=32, lanes_n=48, epilogue_lanes=16, weight_depth=1024)
    for whole in (PRESETS["pynq-z2"], wide):
        third = split_arrays(whole)
        assert third.macs_per_cycle * 3 == whole.macs_per_cycle
        assert third.weight_depth * third.row_bytes["WEIGHT"] == whole.weight_depth * whole.row_bytes["WEIGHT"]


def test_smaller_accelerators():
    """One port of the same width, half of the columns; nothing where there is no more to take away."""
    pynq, zcu = PRESETS["pynq-z2"], PRESETS["zcu102"]
    assert one_port(pynq).axi_masters == one_port(zcu).axi_masters == 1 and one_port(PRESETS["tiny"]) is None
    assert one_port(pynq).dram_bytes_per_cycle == 8 and one_port(pynq).axi_bytes == pynq.axi_bytes
    half = half_array(dataclasses.replace(zcu, lanes_n=64))
    assert (half.lanes_n, half.macs_per_cycle) == (32, 32 * zcu.lanes_k)
    assert half.weight_depth * half.row_bytes["WEIGHT"] == zcu.weight_depth * zcu.lanes_k * 64
    assert half_array(pynq) is None  # 12 columns are no whole number of epilogues


def test_variants_without_meaning_are_left_out():
    variants = [VARIANTS[0], *(variant for variant in VARIANTS if variant.accelerator in (one_port, half_array))]
    result = run_ablation(GRAPH, PRESETS["tiny"], lambda what: None, variants)
    assert [row["variant"] for row in result["rows"]] == ["all techniques"]


def test_the_smallest_group_with_a_program_that_fits():
    naive = next(variant for variant in VARIANTS if len(variant.options) > 1)
    assert compile_variant(GRAPH, PRESETS["pynq-z2"], naive, max_commands=300)[1].moe_group > 1


@pytest.mark.parametrize(("depth", "reloads"), [(8192, False), (550, True)])
def test_reloaded_bytes_are_those_of_weights_that_are_fetched_twice(depth, reloads):
    model = small_model(num_experts=0, top_k=0, expert_hidden=0, mlp_hidden=400)
    config = dataclasses.replace(PRESETS["tiny"], act_depth=depth)
    task = next(iter(build_bundle(random_graph(model), config, CompilerOptions(group_tokens=4)).tasks.values()))
    assert (reloaded_bytes(config, task) > 0) == reloads


def test_a_bench_row_is_of_a_run_on_the_rtl():
    row = bench_row(GRAPH, PRESETS["tiny"])
    assert row["source"] == "simulated" and row["expert_bits"] == 8
    assert row["cycles"] > row["bound_cycles"] >= row["ideal_cycles"] > 0
    assert row["ms"] == pytest.approx(row["cycles"] / PRESETS["tiny"].assumed_clock_mhz / 1000, rel=1e-3)
    assert row["roofline_efficiency"] == pytest.approx(row["bound_cycles"] / row["cycles"], rel=1e-3)
    assert row["dram_bytes"] >= row["dram_lower_bound_bytes"]
    assert len(bench_table([row]).rows) == 1
