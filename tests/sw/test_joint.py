"""Programs of several token sequences on the command-level model: every tensor, whatever order the waits allow."""

import dataclasses

import numpy as np
import pytest

from edgemoe.bundle import Bundle, Joined
from edgemoe.compiler import CompileError, build_bundle, compile_graph
from edgemoe.compiler.commands import accesses
from edgemoe.compiler.fits import commands_needed, fits
from edgemoe.studies.frames import split_images
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import Base, Load, MatMul, Mode, Store, decode_program
from edgemoe_models.config import PRESETS as MODELS
from edgemoe_models.config import TaskConfig
from edgemoe_sim.command_model import POLICIES
from support.execution import execute_joint
from support.joint import JOINED, crowded, joined_programs, untraced
from support.random_graphs import random_graph, small_model

ROOMY = dataclasses.replace(PRESETS["tiny"], name="roomy", max_tokens=256)
WIDE = dataclasses.replace(PRESETS["pynq-z2"], name="wide", lanes_k=32, lanes_n=32, axi_masters=4, axi_bytes=16)
#: Few rows of WEIGHT: keys and values of one head at a time, sequence by sequence.
NARROW = dataclasses.replace(ROOMY, name="narrow", weight_depth=40)


def check(bundle: Bundle, policy: str, seed: int = 3) -> None:
    """Every joint program of a bundle, all its tensors and outputs."""
    model = bundle.model
    first = next((block for block in range(model.depth) if model.is_moe(block)), model.depth)
    for joint in bundle.joint:
        found, wanted, traces, comparison = execute_joint(bundle, joint, policy, seed)
        assert comparison.mismatches == 0, f"{joint.joined}: {comparison.first_mismatch}"
        for values, expected in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(values, expected)
        if first < model.depth:
            assert untraced(traces, joint.joined, comparison.tensors, first) == set()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("config", [ROOMY, PRESETS["pynq-z2"], WIDE], ids=lambda config: config.name)
def test_equals_reference(config, policy):
    """One master and whole groups of rows, two and four masters and a LOAD a row; in any order that waits allow."""
    check(build_bundle(random_graph(small_model()), config, joint=list(JOINED.values())), policy)


@pytest.mark.parametrize("policy", ["random", "loads early, results late"])
@pytest.mark.parametrize("bits", [8, 4])
def test_extreme_queues(bits, policy):
    """Every token of every sequence in two queues, the others empty."""
    graph = crowded(random_graph(small_model(), expert_bits=bits))
    check(build_bundle(graph, ROOMY, joint=list(JOINED.values())), policy)


@pytest.mark.parametrize(
    "changes",
    [
        {"moe_every": 1, "depth": 3},  # the first block has experts
        {"depth": 5, "top_k": 1},
        {"num_experts": 0, "top_k": 0, "expert_hidden": 0},  # no gate: the whole trunk is shared
        {"prefix_tokens": 3},
        {"heads": 5},
    ],
    ids=str,
)
def test_other_networks(changes):
    model = small_model(**changes)
    check(build_bundle(random_graph(model), ROOMY, joint=list(JOINED.values())), "random")


def test_heads_in_parts():
    """Where keys and values of all heads do not fit, every sequence's heads go in parts."""
    check(build_bundle(random_graph(small_model()), NARROW, joint=list(JOINED.values())), "random")


def test_heads_that_the_host_finishes():
    """A task whose residual stream is stored stands beside one with a head on the device."""
    tasks = (
        TaskConfig("segmentation", "segmentation", channels=5, head_hidden=20, cells=2),
        TaskConfig("whole", "classification", channels=7, pool="avg-norm"),
    )
    model = small_model(tasks=tasks)
    bundle = build_bundle(random_graph(model), ROOMY, joint=joined_programs(("segmentation", "whole")))
    joint = bundle.joint[0]
    _, _, _, comparison = execute_joint(bundle, joint, "random")
    assert comparison.mismatches == 0, comparison.first_mismatch


def test_trunk_once_and_experts_once():
    """What two tasks share is computed and fetched once: embedding, blocks before the gate, each expert's weights."""
    graph = random_graph(small_model(depth=4))
    bundle = build_bundle(graph, PRESETS["pynq-z2"], joint=[Joined(("segmentation", "classification"))])
    joint, alone = bundle.joint[0], bundle.task("segmentation")

    def macs(program, names):
        numbers = [number for number, phase in enumerate(program.phases) if phase.name in names]
        return sum(program.phases[number].macs for number in numbers)

    trunk = ("embed", "blocks.0.attention", "blocks.0.mlp", "blocks.1.attention")
    assert macs(joint, trunk) == macs(alone, trunk)
    assert macs(joint, ("blocks.2.attention",)) == 2 * macs(alone, ("blocks.2.attention",))

    def expert_loads(program):
        places = {number for number, phase in enumerate(program.phases) if phase.name.endswith(".moe")}
        return sum(
            payload.rows
            for header, payload in decode_program(program.program)
            if isinstance(payload, Load) and header.phase in places and payload.memory.name == "WEIGHT"
        )

    per_task = expert_loads(alone)
    assert per_task < expert_loads(joint) < 1.2 * per_task  # the other task's gate
    gates = [p for _, p in decode_program(joint.program) if isinstance(p, MatMul) and p.mode == Mode.GATE]
    assert sum(p.gate_first for p in gates) == 2  # once a MoE block, for both tasks


def test_copies_wait_for_what_they_copy():
    """A LOAD of the residual stream reads what this program has stored before, and waits for it."""
    bundle = build_bundle(random_graph(small_model()), PRESETS["pynq-z2"], joint=[JOINED["tasks"]])
    stored: list[tuple[int, int]] = []
    row_bytes = bundle.config.row_bytes["RESIDUAL"]
    for header, payload in decode_program(bundle.joint[0].program):
        if isinstance(payload, Store):
            stored.append((payload.offset, payload.offset + payload.rows * row_bytes))
        elif isinstance(payload, Load) and payload.base == Base.OUTPUT:
            writers = [n for n, (begin, end) in enumerate(stored) if begin <= payload.offset < end]
            assert len(writers) == 1 and header.waits[3] == writers[0] + 1
    assert any(isinstance(p, Load) and p.base == Base.OUTPUT for _, p in decode_program(bundle.joint[0].program))


def test_hazards_see_the_output_region():
    compiled = compile_graph(random_graph(small_model()), PRESETS["pynq-z2"], joint=[JOINED["tasks"]])
    commands = compiled.joint[0].commands
    loads = [c for c in commands if isinstance(c.payload, Load) and c.payload.base == Base.OUTPUT]
    reads, _ = accesses(compiled.config, loads[0])
    assert [name for name, _ in reads] == ["OUTPUT"]


def test_weights_are_stored_once():
    graph = random_graph(small_model())
    alone = build_bundle(graph, ROOMY)
    together = build_bundle(graph, ROOMY, joint=list(JOINED.values()))
    np.testing.assert_array_equal(alone.data, together.data)
    assert alone.joint == () and together.find_joint(("classification", "segmentation")) is together.joint[0]
    assert together.find_joint(("segmentation",), 3) is None and together.most_images == 4


def test_what_does_not_fit_is_named():
    graph, small = random_graph(small_model()), dataclasses.replace(ROOMY, max_tokens=40, name="short")
    with pytest.raises(CompileError, match="tasks segmentation, classification of 2 images: 52 tokens in all.*12 too"):
        build_bundle(graph, small, joint=[JOINED["tasks of two images"]])
    build_bundle(graph, small, joint=[JOINED["tasks"]])
    model = MODELS["m3vit-tiny"]
    (text,) = fits(model, PRESETS["zcu102"], joined=Joined(("segmentation", "depth"), 4))[:1]
    assert "1032 tokens in all, but zcu102 allows max_tokens = 516" in text


@pytest.mark.parametrize(
    ("config", "tasks", "images", "programs"),
    [("pynq-z2", 2, 1, [1]), ("pynq-z2", 1, 4, [2, 2]), ("zcu102", 1, 4, [4]), ("zcu102", 2, 1, [1])],
)
def test_boards_hold_what_they_promise(config, tasks, images, programs):
    """The presets' memories have room for two tasks of m3vit-tiny, and on zcu102 for four images."""
    names = [task.name for task in MODELS["m3vit-tiny"].tasks]
    found = split_images(MODELS["m3vit-tiny"], PRESETS[config], names[:tasks], images)
    assert [joined.images for joined in found] == programs


def test_commands_needed_agrees():
    model = small_model(depth=8)
    compiled = compile_graph(random_graph(model), ROOMY, joint=[JOINED["tasks"]])
    found = commands_needed(model, ROOMY, joined=JOINED["tasks"])
    assert found == {"tasks segmentation, classification": len(compiled.joint[0].commands) + 2}


def test_a_batch_needs_room_for_its_own_head_only():
    tasks = (
        TaskConfig("segmentation", "segmentation", channels=5, head_hidden=400, cells=2),
        TaskConfig("classification", "classification", channels=11),
    )
    model = small_model(tasks=tasks)
    config = dataclasses.replace(ROOMY, act_depth=1400, name="shallow")
    assert fits(model, config) == [] and fits(model, config, joined=JOINED["four images"]) == []
    (text,) = fits(model, config, joined=Joined(("segmentation",), 4))
    assert "52 tokens of 400 hidden channels of the head segmentation" in text
