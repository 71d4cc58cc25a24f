"""The command itself: help, version, exit codes, what goes to stdout and stderr, missing extras."""

import ast
import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import edgemoe as package
from edgemoe.cli import main
from edgemoe.cli.main import EXIT_CODES, overview
from edgemoe.cli.verbs import VERBS
from edgemoe.extras import EXTRAS, install_command

SOURCES = Path(package.__file__).parent
WIDTH = 80


def process(*arguments: object, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "edgemoe.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**pipes, **options})


def test_a_warning_is_one_line(monkeypatch, capsys):
    def warned(arguments):
        warnings.warn("x cannot be written; it will be made again", RuntimeWarning, stacklevel=2)
        return 0

    monkeypatch.setattr(main, "run", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main.main()
    assert capsys.readouterr() == ("", "x cannot be written; it will be made again\n")


# Help and version


def test_help_lists_every_verb_by_group(edgemoe):
    for arguments in ((), ("--help",)):
        text = edgemoe.ok(*arguments)
        assert max(map(len, text.splitlines())) <= WIDTH
        groups = re.findall(r"^(\S.*):$", text, re.MULTILINE)
        assert groups == ["Bring a model", "Run it", "Look inside", "Measure", "Hardware"]
        assert re.findall(r"^  ([a-z-]+) ", text, re.MULTILINE) == list(VERBS)


def loaded_modules(*arguments):
    """Modules of edgemoe that are there after a command, in a process of its own."""
    code = (
        f"import sys; from edgemoe.cli.main import run; assert run({list(arguments)}) == 0;"
        "print([name for name in sys.modules if name.startswith('edgemoe.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


def test_help_imports_no_verb():
    """What makes it fast; half a second is the promise, which a busy machine may not keep."""
    loaded = {name for name in loaded_modules("--help") if name.startswith("edgemoe.cli.")}
    assert loaded == {f"edgemoe.cli.{name}" for name in ("main", "application", "output", "verbs")}


@pytest.mark.parametrize("verb", ["info", "disasm", "selftest"])
def test_verbs_that_compile_nothing_start_without_the_compiler(verb):
    assert not {name for name in loaded_modules(verb, "--help") if name.startswith("edgemoe.compiler")}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_fits(edgemoe, verb):
    module = importlib.import_module(f"edgemoe.cli.{VERBS[verb].module}")
    texts = [edgemoe.ok(verb, "--help")]
    for name in getattr(module.command, "registered_commands", ()):
        texts.append(edgemoe.ok(verb, name.name or name.callback.__name__, "--help"))
    for text in texts:
        assert text.startswith(f"Usage: edgemoe {verb}") and max(map(len, text.splitlines())) <= WIDTH, text
        assert "…" not in text and "TODO" not in text


def test_every_module_of_the_folder_is_a_verb_or_shared():
    shared = {"__init__", "__main__", "application", "main", "options", "output", "outputs", "verbs"}
    files = {path.stem for path in (SOURCES / "cli").glob("*.py")}
    assert files - shared == {verb.module for verb in VERBS.values()}


def test_version(edgemoe):
    assert edgemoe.ok("--version") == f"edgemoe {package.__version__}\n"


# Exit codes


def test_wrong_command_lines(edgemoe):
    edgemoe("smi").refused("smi", "(edgemoe --help)", code=2)
    edgemoe("--colour").refused("--colour", "(edgemoe --help)", code=2)
    edgemoe("sim", "--images", 0).refused("'--images'", "(edgemoe sim --help)", code=2)
    edgemoe("run").refused("Missing argument", "(edgemoe run --help)", code=2)
    edgemoe("info", "a", "b").refused("b", "(edgemoe info --help)", code=2)
    edgemoe("boards", "hwh").refused("BOARD", "(edgemoe boards --help)", code=2)


def test_refusals_and_success_as_a_process(bundle):
    """The entry point: exit code, and nothing but the message or the result."""
    for arguments, code in ((("info", bundle), 0), (("info", "none.emoe"), 1)):
        done = process(*arguments)
        out, err = done.communicate()
        assert done.returncode == code and bool(out) != bool(code)
        assert "Traceback" not in err and len(err.splitlines()) == code


def test_a_fault_of_its_own(edgemoe, bundle, monkeypatch):
    def broken(path):
        raise KeyError("phase")

    monkeypatch.setattr("edgemoe.bundle.Bundle.load", broken)
    done = edgemoe("info", bundle)
    done.refused("info failed through a fault of its own: KeyError: 'phase'", "EDGEMOE_DEBUG=1", code=70)
    monkeypatch.setenv("EDGEMOE_DEBUG", "1")
    assert "Traceback" in edgemoe("info", bundle).err
    monkeypatch.setattr("edgemoe.bundle.Bundle.load", lambda path: (_ for _ in ()).throw(MemoryError))
    monkeypatch.delenv("EDGEMOE_DEBUG")
    edgemoe("info", bundle).refused("edgemoe info needs more memory than there is")


def test_a_reader_that_leaves(bundle):
    """``edgemoe disasm x | head -1``: quiet, with the code that the signal would give."""
    done = process("disasm", bundle)
    assert "BEGIN" in done.stdout.readline() + done.stdout.readline()
    done.stdout.close()
    assert done.wait(60) == 141 and done.stderr.read() == ""
    done.stderr.close()


def test_an_interruption(bundle, image, tmp_path):
    """Ctrl-C while something runs; jobs in a shell's background, as the tests may be, would pass on to ignore it."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import sys, time; import edgemoe.cli.info as info; from edgemoe.cli.main import main;"
        "info.load_bundle = lambda path: (print('running', flush=True), time.sleep(60));"
        "sys.argv = ['edgemoe', 'info', 'x']; main()"
    )
    done = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.readline() == "running\n"
    done.send_signal(signal.SIGINT)
    _, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (130, "edgemoe: interrupted\n")


def test_output_is_seen_before_the_end():
    """In a pipe too: where ``edgemoe demo`` is, one wants to know while it runs."""
    program = "import time; from edgemoe.cli.output import say; say('here'); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment) as done:
        assert done.stdout.readline() == "here\n" and done.poll() is None
        done.kill()


def test_help_and_codes_are_documented():
    text = (SOURCES.parents[1] / "docs" / "command_line.md").read_text(encoding="utf-8")
    assert f"```\n{overview()}\n```" in text
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == set(EXIT_CODES)


# Output


def test_a_narrow_encoding(bundle):
    """A terminal that knows ASCII only."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "edgemoe.cli", "info", str(bundle.with_name("größe.emoe"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("edgemoe: ") and "Traceback" not in done.stderr


def test_long_work_is_named_within_two_seconds(monkeypatch, capsys):
    """Where no bar can be drawn: a step that lasts is named on stderr, a short one is not."""
    from edgemoe.cli import output

    monkeypatch.setattr(output, "PATIENCE", 0.05)
    with output.working("short"):
        pass
    with output.working("building the simulator (about a minute, once)") as work:
        time.sleep(0.3)
        work.detail("step 1", 0.1)  # too soon after the beginning
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "building the simulator (about a minute, once)\n")


def test_a_terminal_shows_what_is_done():
    """On a terminal a line moves; what users name is shown as it is, and results come between, on stdout alone."""
    program = (
        "import time; from edgemoe.cli.output import working\n"
        "with working('reading a[/b] [red]c') as work:\n"
        "    time.sleep(0.4); work.detail('{x} :smile:', 0.5); time.sleep(0.4); work.say('found [bold]')\n"
    )
    master, slave = os.openpty()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
        while part := os.read(master, 65536):
            shown += part
    os.close(master)
    assert done.communicate()[0] == b"found [bold]\n" and done.returncode == 0
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    assert "reading a[/b] [red]c" in text and "{x} :smile:" in text and "found" not in text


def test_only_one_module_prints():
    """Results, notes and refusals go through ``cli.output``, which reads nothing as markup."""
    allowed = {SOURCES / "cli" / "output.py"}
    modules = ("selftest.py", "doctor.py", "platforms/pynq_probe.py")
    boards_own = {SOURCES / "runtime" / name for name in modules}  # where there is no command line
    for root in (SOURCES, SOURCES.parents[1] / "models" / "edgemoe_models"):
        for path in sorted(set(root.rglob("*.py")) - allowed - boards_own):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any(name.partition(".")[0] == "rich" for name in names), f"{path} imports rich"
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id != "print", f"{path}:{node.lineno} prints"
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
                    assert node.attr not in ("stdout", "stderr") or path.name == "main.py", f"{path}:{node.lineno}"


# Extras


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("sim", "sim"),
        ("run {bundle} {image} --device sim", "sim"),
        ("ablation", "sim"),
        ("accuracy", "sim"),
        ("bench --only accelerator", "sim"),
        ("train", "train"),
        ("qat", "train"),
        ("export --task depth --out x.onnx", "onnx"),
        ("demo", "demo"),
        ("synth", "synth"),
        ("fit", "fit"),
        ("boards --utilisation", "synth"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(edgemoe, bundle, image, tmp_path, monkeypatch, arguments, extra):
    """Before anything is made, whatever else is installed here."""
    monkeypatch.chdir(tmp_path)
    absent = EXTRAS[extra].modules
    for name in [name for name in sys.modules if name.partition(".")[0] in absent]:
        monkeypatch.delitem(sys.modules, name)
    for module in absent:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("edgemoe.extras.is_installed", lambda module: module not in absent)
    edgemoe(*arguments.format(bundle=bundle, image=image).split()).refused(
        EXTRAS[extra].purpose, install_command(extra)
    )
    assert sorted(tmp_path.iterdir()) == sorted([bundle, image])


def test_a_group_without_a_verb_prints_its_help(edgemoe):
    """As it is, not as an error of one line."""
    done = edgemoe("study")
    assert done.code == 0 and done.err == "" and "\nCommands:\n  evaluate " in done.out
