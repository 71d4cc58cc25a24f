"""What a verb will write is looked at before the work, for every verb that writes."""

import importlib
import inspect
import os

import pytest
import typer

from edgemoe.cli import outputs
from edgemoe.cli.outputs import output_file, output_folder
from edgemoe.cli.verbs import VERBS

#: Verb, the option that names what is written, and what else it needs.
FILES = {
    "import {folder}": "--out",
    "quantize {graph}": "--out",
    "quantize {graph} --out new.graph": "--report",
    "export --model {graph} --task depth": "--out",
    "compile --model {graph} --config tiny": "--out",
    "evaluate {bundle} {folder}": "--json",
    "accuracy --model m3vit-micro": "--json",
    "verilog": "--out",
    "verilog --config tiny": "--json",
    "fit": "--json",
    "boards --utilisation": "--json",
    "boards doctor": "--out",
    "study evaluate": "--json",
    "study ptq": "--json",
    "study functions": "--json",
    "study harsh": "--json",
    "study overhead": "--json",
    "study simspeed": "--json",
    "study scaling": "--json",
    "study serve": "--json",
    "run {bundle} {image} --device sim": "--waves",
}
FOLDERS = {
    "train": "--out",
    "qat": "--out",
    "run {bundle} {image}": "--out",
    "sim --model {graph} --config tiny": "--out",
    "bench": "--out",
    "ablation --model {graph} --config tiny": "--out",
    "expert-load --model {graph}": "--out",
    "synth": "--out",
    "timing": "--out",
    "explore --model {graph}": "--out",
    "study scaling": "--out",
    "fit": "--out",
    "boards hwh kv260": "--out",
}
#: What must not begin: a verb that got here looked too late.
WORK = (
    "edgemoe.workloads.quantize.quantize_checkpoint",
    "edgemoe.cli.quantize.load_checkpoint",
    "edgemoe.cli.import_model.import_checkpoint",
    "edgemoe.cli.compile_model.load_graph",
    "edgemoe.cli.export.load_graph",
    "edgemoe.cli.sim.load_graph",
    "edgemoe.cli.run.PictureRun",
    "edgemoe.cli.evaluate.load_bundle",
    "edgemoe.cli.expert_load.load_graph",
    "edgemoe.cli.ablation.load_graph",
    "edgemoe.cli.bench.load_results",
    "edgemoe.cli.synth.synthesize",
    "edgemoe.cli.timing.estimate",
    "edgemoe.cli.fit.fit",
    "edgemoe.cli.explore.workload",
    "edgemoe.cli.boards.utilisation",
    "edgemoe.runtime.doctor.examine",
    "edgemoe.cli.study.compare_with_float",
    "edgemoe.cli.study.compare",
    "edgemoe.cli.study.harsh_study.compare",
    "edgemoe.studies.overhead.measure_overhead",
    "edgemoe.studies.simulation_speed.measure_speed",
    "edgemoe.cli.study.load_graph",
    "edgemoe.studies.scaling.axis_rows",
    "edgemoe.studies.serving.serving_rows",
    "edgemoe_sim.build.accelerator_verilog",
    "edgemoe.studies.accuracy.run_accuracy",
    "edgemoe_models.train.loop.run",
    "edgemoe_models.qat.loop.run",
)


@pytest.fixture
def no_work(monkeypatch):
    for name in WORK:
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(module)
        except ImportError:
            pytest.importorskip("torch")
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("the work began"))
    monkeypatch.setattr("edgemoe.extras.is_installed", lambda module: True)


@pytest.fixture
def given(graph_file, bundle, image, tmp_path):
    (tmp_path / "folder").mkdir()
    return {"graph": graph_file, "bundle": bundle, "image": image, "folder": tmp_path / "folder"}


def words(text, given):
    return [word.format(**given) for word in text.split()]


@pytest.mark.parametrize("arguments", FILES)
def test_a_file_that_cannot_be_written(edgemoe, no_work, given, tmp_path, arguments):
    option = FILES[arguments]
    (tmp_path / "file").write_text("x")
    edgemoe(*words(arguments, given), option, tmp_path / "folder").refused("is a folder")
    edgemoe(*words(arguments, given), option, tmp_path / "file" / "x").refused("cannot be a folder", "file is a file")


@pytest.mark.parametrize("arguments", FOLDERS)
def test_a_folder_that_cannot_be_made(edgemoe, no_work, given, tmp_path, arguments):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "x"):
        edgemoe(*words(arguments, given), FOLDERS[arguments], path).refused("cannot be a folder", "file is a file")


def test_every_option_that_writes_is_looked_at():
    """A verb with --out, --json or --waves is in one of the tables above."""
    found = set()
    for name, verb in VERBS.items():
        command = importlib.import_module(f"edgemoe.cli.{verb.module}").command
        commands = {name: command}
        if isinstance(command, typer.Typer):
            commands = {f"{name} {c.name or c.callback.__name__}": c.callback for c in command.registered_commands}
            if command.registered_callback is not None:
                commands[f"{name} --utilisation"] = command.registered_callback.callback
        for title, function in commands.items():
            for parameter in inspect.signature(function, eval_str=True).parameters.values():
                for info in getattr(parameter.annotation, "__metadata__", ()):
                    names = (*(info.param_decls or ()), f"--{parameter.name}") if hasattr(info, "param_decls") else ()
                    found |= {(title, option) for option in ("--out", "--json", "--waves") if option in names[:1]}
    looked_at = {
        (" ".join(text.split()[: 2 if text.startswith(("study", "boards")) else 1]), option)
        for table in (FILES, FOLDERS)
        for text, option in table.items()
    }
    later = {("boards bitstream", "--out"), ("boards flash", "--out")}  # after Vivado and bitstream are found
    assert found - looked_at == later


def test_without_permission(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=rf"{tmp_path}/a cannot be written: no permission in {tmp_path}"):
        output_folder(tmp_path / "a")
    with pytest.raises(ValueError, match="file cannot be replaced: it is write-protected"):
        output_file(tmp_path / "file")


def test_nothing_is_made_and_inputs_stay(tmp_path):
    assert output_file(tmp_path / "a" / "b" / "c.json") == tmp_path / "a" / "b" / "c.json"
    assert output_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "read").write_text("x")
    (tmp_path / "link").symlink_to("read")
    for name in ("read", "link"):
        with pytest.raises(ValueError, match=f"{name} is read and would be replaced"):
            output_file(tmp_path / name, [tmp_path / "read"])
    assert output_file(tmp_path / "other", [tmp_path / "read", tmp_path / "missing"])


def test_devices_are_files(monkeypatch):
    """``--json /dev/null``."""
    assert os.path.exists("/dev/null") and output_file(outputs.Path("/dev/null"))


def test_a_name_that_is_too_long(edgemoe, no_work, graph_file, tmp_path):
    out = tmp_path / ("x" * 300)
    edgemoe("compile", "--model", graph_file, "--config", "tiny", "--out", out).refused("too long")
