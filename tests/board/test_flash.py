"""The way onto a board, with an ``ssh`` that runs the commands here; and the self-test that runs there."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgemoe
from edgemoe.boards import BoardError, load_board
from edgemoe.boards.bitstream import publish
from edgemoe.boards.flash import flash, stage
from edgemoe.bundle import BundleError
from edgemoe.compiler import build_bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime import selftest
from edgemoe.runtime.surroundings import versions_line
from edgemoe_hw.spec.config import PRESETS
from support.command_line import CommandLine
from support.random_graphs import random_graph, small_model

BOARD = load_board("pynq-z2")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "small.emoe"
    build_bundle(random_graph(small_model()), BOARD.config).save(path)
    return path


@pytest.fixture
def built(tmp_path):
    """A folder with a bitstream of the board."""
    work = tmp_path / "work"
    work.mkdir()
    for name, text in (("edgemoe.bit", "bits"), ("edgemoe.hwh", "<EDKSYSTEM/>"), ("result.json", '{"wns_ns": 0.1}')):
        (work / name).write_text(text)
    publish(BOARD, work, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def board_here(program, tmp_path):
    """``ssh`` runs its command in a folder here; ``sudo`` runs the self-test on the reference, from what was copied."""
    home = tmp_path / "home"
    home.mkdir()
    program("ssh", f'echo "$@" >> "{tmp_path}/ssh"\nfor last; do :; done\ncd "{home}" && exec sh -c "$last"')
    program(
        "sudo",
        f'cd "$(dirname "$2")" && PYTHONPATH=lib exec "{sys.executable}" -c '
        '"import sys, edgemoe; print(edgemoe.__file__); from edgemoe.runtime.selftest import main; '
        "sys.exit(main(['--device', 'reference', '--bundle', 'bundle.emoe', '--images', '1']))\"",
    )
    return home


def test_flash(board_here, built, bundle, tmp_path, capfd):
    """Everything arrives, nothing of an older copy stays, and what arrived runs by itself."""
    (manifest,) = built.glob("*.json")
    folder = board_here / "edgemoe" / manifest.stem
    folder.mkdir(parents=True)
    (folder / "old").write_text("")
    steps = []
    flash(BOARD, "xilinx@board", bundle, built, steps.append)

    names = {path.name for path in folder.iterdir()}
    assert names == {f"{manifest.stem}.{suffix}" for suffix in ("bit", "hwh", "json")} | {
        "bundle.emoe",
        "lib",
        "selftest.sh",
        "doctor.sh",
    }
    assert (folder / f"{manifest.stem}.bit").read_text() == "bits"
    assert {path.name for path in (folder / "lib").iterdir()} == {"edgemoe", "edgemoe_hw", "edgemoe_models"}
    copy, run = (tmp_path / "ssh").read_text().splitlines()
    assert copy.startswith("-o ConnectTimeout=10 xilinx@board mkdir -p edgemoe")
    assert run == f"-o ConnectTimeout=10 -t xilinx@board sudo bash edgemoe/{manifest.stem}/selftest.sh"
    output = capfd.readouterr().out
    assert output.startswith("lib/edgemoe/__init__.py") or f"{folder}/lib/edgemoe/__init__.py" in output
    assert "equal the integer reference" in output and "self-test passed" in output
    assert len(steps) == 2


def test_script_on_the_board(program, built, bundle, tmp_path):
    """It runs PYNQ's Python on what lies beside it, wherever it is started; its options win."""
    program("python3", f'echo "$PWD $PYTHONPATH $@" > "{tmp_path}/called"')
    (manifest,) = built.glob("*.json")
    folder = stage(BOARD, manifest, bundle, built)
    subprocess.run(["bash", str(folder / "selftest.sh"), "--images", "5"], check=True, cwd=tmp_path)
    assert (tmp_path / "called").read_text().split() == [
        str(folder),
        "lib",
        "-m",
        "edgemoe.runtime.selftest",
        "--device",
        "pynq",
        "--bundle",
        "bundle.emoe",
        "--bitstream",
        f"{manifest.stem}.bit",
        "--images",
        "5",
    ]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (
            """case "$*" in *'"pynq"'*) exit 1;; esac""",
            "edgemoe: this board's Python has no pynq: sudo python3 -m pip install pynq\n",
        ),
        (
            """case "$*" in *'import numpy'*) printf 'Traceback\\nImportError: libblas is missing'; exit 1;; esac""",
            "edgemoe: this board's Python cannot use numpy (ImportError: libblas is missing): "
            "sudo python3 -m pip install numpy\n",
        ),
        (
            """case "$*" in --version) echo Python 3.8.2;; *version_info*) exit 1;; esac""",
            "edgemoe: this board has Python 3.8.2; 3.10 is needed, which PYNQ has from its image 3.0 on\n",
        ),
    ],
)
def test_board_without_what_is_needed(program, built, bundle, python, message):
    program("python3", python)
    folder = stage(BOARD, next(built.glob("*.json")), bundle, built)
    result = subprocess.run(["bash", str(folder / "selftest.sh")], capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr == message


def test_doctor_on_the_board(program, built, bundle, tmp_path):
    """It starts where pynq is missing too, which is one of the things that it tells."""
    program("python3", f"""case "$*" in *'"pynq"'*) exit 1;; *) echo "$@" > "{tmp_path}/called";; esac""")
    (manifest,) = built.glob("*.json")
    folder = stage(BOARD, manifest, bundle, built)
    subprocess.run(["bash", str(folder / "doctor.sh"), "--out", "x.json"], check=True, cwd=tmp_path)
    options = f"--bundle bundle.emoe --bitstream {manifest.stem}.bit --out x.json"
    assert (tmp_path / "called").read_text() == f"-m edgemoe.runtime.doctor {options}\n"


def test_doctor_of_what_was_copied(built, bundle, tmp_path):
    """With nothing but Python, NumPy and the copied files; here, where is no board."""
    folder = stage(BOARD, next(built.glob("*.json")), bundle, built)
    done = subprocess.run(
        ["bash", str(folder / "doctor.sh")],
        capture_output=True,
        text=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "edgemoe-doctor.json").read_text())
    assert found["selftest"]["code"] == 0 and found["selftest"]["output"][-1] == "self-test passed"
    assert "self-test on reference: passed" in done.stdout and "this is no board" in done.stdout


@pytest.mark.parametrize(
    ("ssh", "message"),
    [
        (
            "cat > /dev/null; echo 'ssh: connect to host b port 22: No route to host' >&2; exit 255",
            "b cannot be reached: ssh: connect to host b port 22: No route to host",
        ),
        ("cat > /dev/null; echo 'tar: No space left' >&2; exit 2", "b did not take the files: tar: No space left"),
        (
            'case "$*" in *selftest.sh) exit 1;; *) cat > /dev/null;; esac',
            r"the self-test failed on b \(1\).*doctor.sh",
        ),
        ('case "$*" in *selftest.sh) exit 255;; *) cat > /dev/null;; esac', "the connection to b was lost"),
    ],
)
def test_what_goes_wrong_on_the_way(program, built, bundle, ssh, message):
    program("ssh", ssh)
    with pytest.raises(BoardError, match=message):
        flash(BOARD, "b", bundle, built)


def test_no_ssh(built, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match="ssh is missing: install an OpenSSH client"):
        flash(BOARD, "b", bundle, built)


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "a b"])
def test_host(built, bundle, host):
    with pytest.raises(BoardError, match="host must be the board's name or user@name"):
        flash(BOARD, host, bundle, built)


@pytest.fixture
def command(capfd):
    """``edgemoe boards flash``; what ssh's commands print counts too."""
    return functools.partial(CommandLine(capfd), "boards", "flash")


def test_command(command, board_here, built, bundle, tmp_path):
    """As `make flash` calls it; folders and bundle with spaces in their names."""
    spaced, out = tmp_path / "my bundle.emoe", tmp_path / "my bitstreams"
    shutil.copy(bundle, spaced)
    shutil.copytree(built, out)
    result = command("pynq-z2", "--host", "xilinx@board", "--bundle", spaced, "--out", out)
    assert result.code == 0, result.err
    assert "self-test passed" in result.out
    (sent,) = (board_here / "edgemoe").iterdir()
    assert (sent / "bundle.emoe").read_bytes() == bundle.read_bytes()


def test_command_fails_as_the_selftest_does(command, program, built, bundle):
    program("ssh", 'case "$*" in *selftest.sh) echo "depth: 3 values DIFFER"; exit 1;; *) cat > /dev/null;; esac')
    result = command("pynq-z2", "--host", "b", "--bundle", bundle, "--out", built)
    assert result.code == 1
    assert "edgemoe: the self-test failed on b (1); its messages are above. What to send" in result.err
    assert result.err.endswith(f"sudo bash edgemoe/{next(built.glob('*.json')).stem}/doctor.sh\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pynq-z2", "--host", ""], "host must be the board's name"),  # make flash BOARD=pynq-z2, before anything else
        (["pynq-z2", "--host", "b"], "make bitstream BOARD=pynq-z2"),
        (["", "--host", "b"], "board must be one of"),
    ],
)
def test_command_refuses(command, tmp_path, monkeypatch, arguments, message):
    """Before a bundle is compiled, which takes long."""
    monkeypatch.setattr("edgemoe.compiler.build_bundle", lambda *_: pytest.fail("compiled"))
    command(*arguments, "--out", tmp_path).refused(message)


def test_flash_again_after_a_run_as_root(board_here, built, bundle):
    """What Python leaves in the folder would be root's; the next copy could not delete it."""
    flash(BOARD, "xilinx@board", bundle, built)
    script = next(board_here.glob("edgemoe/*/selftest.sh")).read_text()
    assert "export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=lib\nexec python3" in script


def test_no_bitstream(bundle, tmp_path):
    with pytest.raises(BoardError, match="make bitstream BOARD=pynq-z2"):
        flash(BOARD, "b", bundle, tmp_path)


def test_bundle_of_another_configuration(built, tmp_path):
    path = tmp_path / "tiny.emoe"
    build_bundle(random_graph(small_model()), PRESETS["tiny"]).save(path)
    with pytest.raises(BundleError, match="compile it with --config pynq-z2"):
        flash(BOARD, "b", path, built)


def test_selftest_sees_a_difference(bundle, monkeypatch, capsys):
    """A device whose every output is off by one."""
    opened = edgemoe.open

    def off_by_one(device, *arguments, **options):
        accelerator = opened("reference", *arguments)
        if device == "sim":
            run = accelerator.run
            monkeypatch.setattr(accelerator, "run", lambda image, task: Shifted(run(image, task).raw + 1))
        return accelerator

    class Shifted:
        def __init__(self, raw):
            self.raw = raw

    monkeypatch.setattr(selftest, "open_device", off_by_one)
    assert selftest.main(["--device", "sim", "--bundle", str(bundle)]) == 1
    assert "values DIFFER from the integer reference" in capsys.readouterr().out


class ForeignError(Exception):
    """None of ours."""


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (AttributeError("module 'pynq.ps' has no attribute 'X'"), "through AttributeError: module 'pynq.ps' has no", 1),
        (ForeignError("a\nb"), "the self-test failed through ForeignError: a b (EDGEMOE_DEBUG=1 shows where)", 1),
        (AssertionError(), "through AssertionError: no text", 1),
        (DeviceError("no board"), "edgemoe: no board\n", 1),
        (KeyboardInterrupt(), "edgemoe: interrupted\n", 130),
    ],
)
def test_selftest_never_ends_in_a_traceback(bundle, monkeypatch, capsys, error, message, code):
    """And what it runs on comes first, so that whatever is sent has it."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(selftest, "open_device", fail)
    monkeypatch.delenv("EDGEMOE_DEBUG", raising=False)
    assert selftest.main(["--bundle", str(bundle)]) == code
    out, err = capsys.readouterr()
    assert out == f"{versions_line()}\n" and len(err.splitlines()) == 1 and message in err
    assert re.fullmatch(r"edgemoe \S+, Python \S+, numpy \S+, pynq \S+, \w+ \S+ \w+", versions_line())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "device must be one of reference, sim, pynq"),
        (["--bundle", "missing.emoe"], "missing.emoe"),
    ],
)
def test_selftest_refuses(bundle, arguments, message, capsys):
    assert selftest.main(["--bundle", str(bundle), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
