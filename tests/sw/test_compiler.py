"""Compiled programs on the command-level model, in adversarial orders, against the integer reference."""

import dataclasses

import numpy as np
import pytest

from edgemoe.compiler import CompileError, CompilerOptions, build_bundle, compile_graph
from edgemoe.compiler.program import MAX_COMMANDS
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_hw.spec.isa import Engine, EnginePayload, decode_program, encode, waits
from edgemoe_models.config import PRESETS as MODELS
from edgemoe_models.config import TaskConfig
from edgemoe_sim.command_model import POLICIES, Deadlock
from support.execution import execute
from support.programs import rewritten
from support.random_graphs import random_graph, small_model

CRAMPED = AcceleratorConfig(
    name="cramped",
    weight_depth=96,
    act_depth=512,
    residual_depth=160,
    score_depth=40,
    param_depth=64,
    max_dim=64,
    max_tokens=64,
)
CONFIGS = {**PRESETS, "cramped": CRAMPED}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("config", CONFIGS)
def test_every_order_gives_the_reference(config, policy):
    bundle = build_bundle(random_graph(small_model()), CONFIGS[config], CompilerOptions(group_tokens=4))
    for task in bundle.tasks:
        found, outputs, expected, result = execute(bundle, task, policy)
        assert result.mismatches == 0, result.first_mismatch
        np.testing.assert_array_equal(found, outputs)
        untraced = {name.rsplit(".", 1)[-1] for name in set(expected) - result.tensors}
        assert untraced <= {"probabilities", "gate_logits"}  # never stored on chip


@pytest.mark.parametrize(
    "changes",
    [
        {"num_experts": 3, "top_k": 1},
        {"num_experts": 9, "top_k": 4},
        {"num_experts": 0, "top_k": 0, "expert_hidden": 0},
        {"dim": 24, "heads": 3, "mlp_hidden": 17, "expert_hidden": 9},
        {"image_height": 4, "image_width": 4},
        {"depth": 4, "moe_every": 1},
        {"tasks": tuple(TaskConfig(f"t{i}", "depth", channels=1, cells=3) for i in range(4))},
    ],
)
def test_odd_models(changes):
    graph = random_graph(small_model(**changes), seed=1)
    bundle = build_bundle(graph, PRESETS["tiny"], CompilerOptions(group_tokens=5))
    for task in bundle.tasks:
        found, outputs, _, result = execute(bundle, task, "random")
        assert result.mismatches == 0, result.first_mismatch
        np.testing.assert_array_equal(found, outputs)


@pytest.mark.parametrize("config", CONFIGS)
def test_int4_experts(config):
    """Odd and even numbers of steps; the experts' bytes in DRAM, in LOADs and in the bound are about half."""
    for changes in ({}, {"dim": 24, "heads": 3, "expert_hidden": 9}, {"dim": 64, "expert_hidden": 33, "moe_every": 1}):
        model = small_model(**changes)
        wide, narrow = (build_bundle(random_graph(model, 1, bits), CONFIGS[config]) for bits in (8, 4))
        for task in narrow.tasks:
            found, outputs, _, result = execute(narrow, task, "random")
            assert result.mismatches == 0, result.first_mismatch
            np.testing.assert_array_equal(found, outputs)
        weights = 2 * model.dim * model.expert_hidden
        for before, after in zip(wide.tasks["segmentation"].phases, narrow.tasks["segmentation"].phases, strict=True):
            assert before.expert_bytes - after.expert_bytes == (weights // 2 if before.expert_bytes else 0)
            assert (before.macs, before.bytes_read, before.expert_macs) == (
                after.macs,
                after.bytes_read,
                after.expert_macs,
            )


def test_int4_weights_take_half_the_rows():
    """Nothing else in DRAM changes: what is saved are the experts' packed steps."""
    config, model = PRESETS["pynq-z2"], MODELS["m3vit-tiny"]  # 12 and 24 steps, no padding
    sizes, loaded = [], []
    for bits in (8, 4):
        compiled = compile_graph(random_graph(model, expert_bits=bits), config)
        sizes.append(len(compiled.data))
        loaded.append(compiled.programs["depth"].load_bytes)
    experts = 6 * model.num_experts * 2 * model.dim * model.expert_hidden  # of six MoE blocks
    assert sizes[0] - sizes[1] == loaded[0] - loaded[1] == experts // 2


@pytest.mark.parametrize(
    ("model", "config"),
    [("m3vit-micro", "tiny"), ("m3vit-tiny", "pynq-z2"), ("m3vit-tiny", "zcu102"), ("deit-tiny", "pynq-z2")],
)
def test_presets(model, config):
    bundle = build_bundle(random_graph(MODELS[model]), PRESETS[config])
    task = next(iter(bundle.tasks))
    found, outputs, _, result = execute(bundle, task, "loads early, results late")
    assert result.mismatches == 0, result.first_mismatch
    np.testing.assert_array_equal(found, outputs)


def test_a_missing_wait_is_found():
    bundle = build_bundle(random_graph(small_model()), PRESETS["tiny"], CompilerOptions(group_tokens=4))
    task = next(iter(bundle.tasks))
    code = bundle.task(task).program
    for cleared in (Engine.LOAD, Engine.MATMUL, Engine.NORM):
        changed = []
        for header, payload in decode_program(code):
            if isinstance(payload, EnginePayload):
                kept = {engine: header.waits[engine] for engine in Engine if engine != cleared}
                header = dataclasses.replace(header, waits=waits(kept))
            changed.append(encode(payload, header))
        program = b"".join(changed)
        assert any(differs(bundle, task, policy, program) for policy in POLICIES), f"{cleared.name}: nobody noticed"


def differs(bundle, task, policy, program):
    """Whether a program without some waits computes something else, or reads parameters that are not there."""
    try:
        return execute(bundle, task, policy, program=program)[3].mismatches > 0
    except ValueError as error:
        assert "accumulator" in str(error)
        return True


def test_waits_point_backwards_so_dispatch_cannot_deadlock():
    program = compile_graph(random_graph(small_model()), PRESETS["tiny"]).programs["segmentation"]
    finished = [0] * len(Engine)
    for command in program.commands:
        assert all(wait <= count for wait, count in zip(command.waits, finished, strict=True)), command.label
        assert command.ordinal == finished[command.engine]
        finished[command.engine] += 1


def test_a_wait_that_is_never_met_is_a_deadlock():
    bundle = build_bundle(random_graph(small_model()), PRESETS["tiny"])
    task = next(iter(bundle.tasks))
    program = bundle.task(task).program
    stuck = rewritten(
        program,
        1,
        lambda header, payload: (dataclasses.replace(header, waits=waits({Engine.STORE: 1})), payload),
    )
    with pytest.raises(Deadlock, match="cannot be dispatched"):
        execute(bundle, task, "random", program=stuck)


@pytest.mark.parametrize(
    ("field", "depth", "message"),
    [
        ("residual_depth", 60, "need 65 rows of the residual scratchpad, which has 60: 5 too few"),
        ("act_depth", 100, "rows of the activation scratchpad"),
        ("weight_depth", 16, "too few"),
        ("score_depth", 2, "rows of the score scratchpad"),
        ("max_dim", 32, "allows max_dim = 32: 8 too many"),
    ],
)
def test_what_does_not_fit_is_refused(field, depth, message):
    config = dataclasses.replace(PRESETS["tiny"], **{field: depth})
    with pytest.raises(CompileError, match=message):
        build_bundle(random_graph(small_model()), config)


def test_tasks_share_weights():
    graph = random_graph(small_model())
    both = compile_graph(graph, PRESETS["tiny"])
    private = sum(linear.weight.size for name, linear, _ in graph.linears() if "gate" in name or "heads" in name)
    shared = sum(linear.weight.size for name, linear, _ in graph.linears()) - private
    assert shared < len(both.data) < 2 * shared


LARGE = AcceleratorConfig(
    name="large",
    weight_depth=60000,
    act_depth=60000,
    residual_depth=60000,
    score_depth=60000,
    param_depth=60000,
    max_dim=1024,
    max_tokens=1024,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 1024, "heads": 1}, "attention heads of 1024 channels, 1024 with padding .* can express 1023"),
        ({"dim": 1020, "heads": 1}, "attention heads of 1020 channels, 1024 with padding"),
        (
            {"mlp_hidden": 2100},
            "blocks.0.fc2.*too large for a command: MatMul.k_steps must be between 0 and 255, not 263",
        ),
        (
            {"depth": 130, "dim": 8, "heads": 1},
            "too large for a command: Header.phase must be between 0 and 255, not 256",
        ),
    ],
)
def test_what_a_command_cannot_express_is_refused(changes, message):
    model = small_model(**({"num_experts": 0, "top_k": 0, "expert_hidden": 0, "depth": 1} | changes))
    with pytest.raises(CompileError, match=message):
        compile_graph(random_graph(model), LARGE)


def test_too_many_commands_are_refused():
    """The limit is what BEGIN's field holds; here it is lowered to a small program's size."""
    graph = random_graph(small_model())
    commands = max(len(p.commands) for p in compile_graph(graph, PRESETS["tiny"]).programs.values()) + 2
    assert MAX_COMMANDS == 65535
    compile_graph(graph, PRESETS["tiny"], max_commands=commands)
    with pytest.raises(CompileError, match=f"needs {commands} commands, the limit is {commands - 1}: 1 too many"):
        compile_graph(graph, PRESETS["tiny"], max_commands=commands - 1)
