"""Programs of several tasks or images on the command line and in ``edgemoe.compile``: what is made, shown, refused."""

import dataclasses
import warnings

import numpy as np
import pytest

import edgemoe as package
from edgemoe.bundle import Bundle, Joined
from edgemoe.compiler import CompileError, CompilerOptions, joint_programs
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.graph.file import write_graph
from support.random_graphs import random_graph, small_model
from support.small_bundle import MODEL

TINY = PRESETS["tiny"]
TASKS = ("segmentation", "depth", "scene")  # of MODEL, 13 tokens each
SMALL = dataclasses.replace(TINY, name="small", max_tokens=26)  # room for two sequences


def chosen(config=TINY, model=MODEL, **asked):
    told = []
    return joint_programs(model, config, CompilerOptions(), note=told.append, **asked), told


def test_all_tasks_where_they_fit():
    assert chosen() == ([Joined(TASKS)], [])
    assert chosen(model=small_model(tasks=MODEL.tasks[:1])) == ([], [])  # there is nothing to join
    assert chosen(joint="none") == ([], [])
    found, told = chosen(SMALL)
    assert found == [] and told == [
        "each task gets its own program only: a program of tasks segmentation, depth, scene does not fit small: tasks "
        "segmentation, depth, scene: 39 tokens in all, but small allows max_tokens = 26: 13 too many"
    ]


def test_what_is_asked_for():
    assert chosen(SMALL, joint=[["scene", "depth"], ("depth", "scene")]) == ([Joined(("depth", "scene"))], [])
    batches = [Joined((task,), images) for task in TASKS for images in (2, 3)]
    assert chosen(batch=3) == ([Joined(TASKS), *batches], [])
    assert chosen(SMALL, joint="none", batch=2)[0] == batches[::2]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (
            {"joint": [TASKS]},
            CompileError,
            "a program of tasks segmentation, depth, scene does not fit small: .*13 too",
        ),
        ({"batch": 4}, CompileError, "a program of task segmentation of 4 images does not fit small: .*26 too many"),
        ({"batch": 5}, ValueError, "batch must be 1 to 4 images, not 5"),
        ({"batch": 0}, ValueError, "batch must be 1 to 4 images, not 0"),
        ({"batch": True}, ValueError, "batch must be 1 to 4 images, not True"),
        ({"joint": "all"}, ValueError, "joint must be auto, none or sets of tasks, not 'all'"),
        ({"joint": ["depth", "scene"]}, ValueError, "a set of tasks .* must be a list of names, not 'depth'"),
        ({"joint": [["depth"]]}, ValueError, "a program of several tasks needs at least two of segmentation, "),
        ({"joint": [["depth", "depth"]]}, ValueError, "needs at least two of"),
        ({"joint": [["depth", "fog"]]}, ValueError, "the model has no task 'fog'; it has segmentation, depth, scene"),
        ({"joint": [[]]}, ValueError, "needs at least two of"),
        ({"joint": [3]}, ValueError, "must be a list of names, not 3"),
    ],
)
def test_what_is_refused(asked, error, message):
    with pytest.raises(error, match=message):
        chosen(SMALL, **asked)


def test_python(tmp_path):
    graph = random_graph(MODEL)
    assert [joint.joined for joint in package.compile(graph, TINY).joint] == [Joined(TASKS)]
    with pytest.warns(UserWarning, match="each task gets its own program only"):
        assert package.compile(graph, SMALL).joint == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = []
        assert package.compile(graph, SMALL, notes=told.append).joint == () and len(told) == 1
        bundle = package.compile(graph, SMALL, joint=[["depth", "scene"]], batch=2)
    assert [(joint.joined.tasks, joint.joined.images) for joint in bundle.joint] == [
        (("depth", "scene"), 1),
        *(((task,), 2) for task in TASKS),
    ]
    bundle.check()


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """The command line's small model with all tasks in one program, and batches of two."""
    path = tmp_path_factory.mktemp("joint") / "small.emoe"
    package.compile(random_graph(MODEL), TINY, batch=2).save(path)
    return path


def test_compile_info_and_disassembly(edgemoe, graph_file, joined, tmp_path):
    out = tmp_path / "x.emoe"
    printed = edgemoe.ok("compile", "--model", graph_file, "--config", "tiny", "--batch", 2, "--out", out)
    assert out.read_bytes() == joined.read_bytes()
    assert "one program for tasks segmentation, depth, scene; for task segmentation of 2 images; for task" in printed
    bundle, shown = Bundle.load(out), edgemoe.ok("info", out)
    assert max(map(len, shown.splitlines())) <= 80
    for joint in bundle.joint:
        alone = joint.joined.images * sum(bundle.task(name).estimated_cycles for name in joint.joined.tasks)
        line = next(
            line
            for line in shown.partition("in one program")[2].splitlines()
            if line.startswith(joint.joined.tasks[0]) and f" {joint.joined.images} " in line
        )
        figures = (joint.commands, joint.load_bytes, joint.estimated_cycles)
        assert all(f" {figure:,} " in line for figure in figures)
        assert line.endswith(f" {joint.estimated_cycles / alone:.0%}")
    for options, program in (
        (("--task", "scene+depth+segmentation"), bundle.joint[0]),
        (("--task", "depth", "--images", 2), bundle.program(Joined(("depth",), 2))),
    ):
        assert len(edgemoe.ok("disasm", out, *options).splitlines()) == program.commands
    edgemoe("disasm", out, "--task", "depth+scene").refused("this bundle has no program of depth+scene; it has tasks")
    edgemoe("disasm", out, "--task", "depth", "--images", 3).refused("no program of depth of 3 images")
    edgemoe("disasm", out, "--task", "depth+fog").refused("this bundle has no task 'fog'")


def test_compile_options(edgemoe, graph_file, tmp_path):
    arguments = ("compile", "--model", graph_file, "--out", tmp_path / "x.emoe", "--config")
    edgemoe.ok(*arguments, "tiny", "--joint", "none")
    assert Bundle.load(tmp_path / "x.emoe").joint == ()
    edgemoe.ok(*arguments, "tiny", "--joint", "scene+depth", "--joint", "segmentation+scene")
    assert [str(joint.joined) for joint in Bundle.load(tmp_path / "x.emoe").joint] == [
        "tasks depth, scene",
        "tasks segmentation, scene",
    ]
    (tmp_path / "small.json").write_text(SMALL.to_json())
    done = edgemoe(*arguments, tmp_path / "small.json")
    assert done.code == 0 and "note: each task gets its own program only: " in done.err and "13 too many" in done.err
    before = (tmp_path / "x.emoe").read_bytes()
    edgemoe(*arguments, tmp_path / "small.json", "--batch", 3).refused("of 3 images does not fit small", "13 too many")
    edgemoe(*arguments, "tiny", "--joint", "depth").refused("--joint must be auto, none or tasks with a + between them")
    edgemoe(*arguments, "tiny", "--joint", "none", "--joint", "depth+scene").refused("not 'none'")
    edgemoe(*arguments, "tiny", "--joint", "depth+fog").refused("the model has no task 'fog'")
    edgemoe(*arguments, "tiny", "--batch", 9).refused("batch must be 1 to 4 images, not 9")
    assert (tmp_path / "x.emoe").read_bytes() == before


def test_pictures_of_a_device(edgemoe, joined, image, tmp_path, monkeypatch):
    """``edgemoe run`` runs all tasks of a picture at once, and finds what they find one by one."""
    wanted = {}
    with package.open("reference", joined) as accelerator:
        for task in TASKS:
            wanted[task] = accelerator.run(image, task).raw
    programs = []
    execute = package.runtime.reference.ReferenceExecutor.execute

    def watched(executor, program, *arguments, **options):
        programs.append(program)
        return execute(executor, program, *arguments, **options)

    monkeypatch.setattr("edgemoe.runtime.reference.ReferenceExecutor.execute", watched)
    edgemoe.ok("run", joined, image, "--out", tmp_path / "run")
    assert programs == [Joined(TASKS)]
    for task in TASKS:
        np.testing.assert_array_equal(np.load(tmp_path / "run" / f"scene-{task}.npy"), wanted[task])


def test_int4_experts(edgemoe, tmp_path):
    write_graph(random_graph(MODEL, expert_bits=4), tmp_path / "small.safetensors")
    edgemoe.ok("compile", "--model", tmp_path / "small.safetensors", "--config", "tiny", "--out", tmp_path / "x")
    assert [joint.joined for joint in Bundle.load(tmp_path / "x").joint] == [Joined(TASKS)]
