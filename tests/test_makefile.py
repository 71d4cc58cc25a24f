"""The Makefile: what each target calls, in a checkout whose path has spaces and an umlaut, with stubs for the tools."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAMPS = (".base", ".sim", ".demo", ".baselines", ".synth", ".formal", ".explore", ".fit", ".test", ".lint", ".docs")
_STUB = """#!/bin/sh
for argument in "$@"; do printf '%s\\n' "$argument"; done > "called-{name}"
"""


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "tools"
        shutil.copytree(ROOT / ".ci", folder / ".ci")
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        for board in (ROOT / "boards").glob("*/board.toml"):
            (folder / "boards" / board.parent.name).mkdir(parents=True)
            shutil.copy(board, folder / "boards" / board.parent.name)
        self.stub(folder / ".venv" / "bin" / "edgemoe")
        for name in ("make", "sh", "awk", "test", "touch", "cat", "rm", "echo", "mkdir", "cp", "printf"):
            self.path.mkdir(exist_ok=True)
            if found := shutil.which(name):
                (self.path / name).symlink_to(found)
        for name in ("g++",):
            self.stub(self.path / name)

    def stub(self, path: Path) -> None:
        """A program that writes its arguments down."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_STUB.format(name=path.name))
        path.chmod(0o755)

    def set_up(self) -> None:
        """As if everything had been installed."""
        self.stub(self.folder / ".venv" / "bin" / "python")
        for name in STAMPS:
            (self.folder / ".venv" / name).touch()

    def make(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={"PATH": str(self.path), "HOME": os.environ.get("HOME", "/")},
        )

    def called(self, name: str = "edgemoe") -> list[str] | None:
        """The arguments that a stub had; None: it was not called."""
        path = self.folder / f"called-{name}"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else None


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "mein Projekt ü"
    folder.mkdir()
    return Checkout(folder)


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["sim"], ["sim"]),
        (
            ["sim", "MODEL=my model's.safetensors", "CONFIG=a b.json", "IMAGES=2", "OUT=größer $$(date)"],
            [
                "sim",
                "--model",
                "my model's.safetensors",
                "--config",
                "a b.json",
                "--images",
                "2",
                "--out",
                "größer $(date)",
            ],
        ),
        (["sim", "ARGS=--out x"], ["sim", "--out", "x"]),
        (["demo", "BUNDLE=a b.emoe", "ARGS=--port 0"], ["demo", "--bundle", "a b.emoe", "--port", "0"]),
        (["bench", "ONLY=accelerator"], ["bench", "--only", "accelerator"]),
        (["ablation", "CONFIG=tiny"], ["ablation", "--config", "tiny"]),
        (["accuracy"], ["expert-load"]),
        (["synth", "CONFIG=zcu102"], ["synth", "--config", "zcu102"]),
        (["timing", "CONFIG=tiny"], ["timing", "--config", "tiny"]),
        (["timing", "BOARD=kv260", "OUT=x"], ["timing", "--config", "kv260", "--out", "x"]),
        (["explore", "BOARD=kv260", "MODEL=m"], ["explore", "--board", "kv260", "--model", "m"]),
        (["fit", "OUT=x"], ["fit", "--out", "x"]),
        (["utilisation", "BOARD=kv260"], ["boards", "--utilisation", "--only", "kv260"]),
        (["hwh", "BOARD=kv260"], ["boards", "hwh", "kv260"]),
        (
            ["flash", "BOARD=kv260", "HOST=me@board", "BUNDLE=a b"],
            ["boards", "flash", "kv260", "--host", "me@board", "--bundle", "a b"],
        ),
    ],
)
def test_targets_call_the_verbs(checkout, arguments, called):
    checkout.set_up()
    done = checkout.make(*arguments)
    assert done.returncode == 0, done.stderr
    assert checkout.called() == called


def test_every_verb_that_is_called_exists():
    from edgemoe.cli.verbs import VERBS

    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = set(re.findall(r"\$\(BIN\)/edgemoe ([a-z-]+)", text))
    assert called and called <= set(VERBS)


def test_vivado_is_asked_for_before_anything_is_downloaded(checkout):
    done = checkout.make("bitstream", "BOARD=kv260")
    assert done.returncode != 0 and "needs AMD Vivado 2022.1 or newer" in done.stderr
    assert not (checkout.folder / ".venv" / ".base").exists() and checkout.called() is None
    checkout.stub(checkout.path / "vivado")
    checkout.set_up()
    assert checkout.make("bitstream", "BOARD=kv260").returncode == 0
    assert checkout.called() == ["boards", "bitstream", "kv260"]


@pytest.mark.parametrize("target", ["hwh", "bitstream", "flash"])
@pytest.mark.parametrize("board", ["", "zynq", "a b", "'"])
def test_an_unknown_board_is_refused_first(checkout, target, board):
    done = checkout.make(target, f"BOARD={board}")
    assert done.returncode != 0 and "edgemoe: BOARD must be one of aup-zu3 aup-zu3-large kr260" in done.stderr
    assert not (checkout.folder / ".venv" / ".base").exists()


def test_accuracy_on_photographs():
    """A row a data set, unless a model is named; the folder may have any name."""
    command = ["make", "-n", "-s", "accuracy", "CAMVID=a b", "VENV=none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--data camvid" in done.stdout and "--data-root 'a b'" in done.stdout and "--skip-missing" in done.stdout
    done = subprocess.run([*command, "MODEL=x"], cwd=ROOT, capture_output=True, text=True)
    assert "accuracy --model 'x'" in done.stdout and "camvid" not in done.stdout


def test_help_is_grouped(checkout):
    text = checkout.make().stdout
    assert re.findall(r"^(\w.*):$", text, re.MULTILINE) == ["Run it", "Measure", "Hardware", "Develop"]
    listed = re.findall(r"^  make ([a-z-]+) ", text, re.MULTILINE)
    phony = re.search(r"^\.PHONY: help ((?:.|\\\n)*?)\n[^ ]", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    assert set(listed) == set(phony.replace("\\\n", " ").split()) - {"board", "vivado", "tools"}


def test_set_up_in_a_path_with_spaces(checkout):
    """A Python whose own path has a space makes the virtual environment; pip gets relative names only."""
    python = checkout.folder.parent / "my python" / "python3"
    python.parent.mkdir()
    script = (
        "#!/bin/sh\n"
        'case "$*" in "-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;; *"-m pip"*)'
        ' for a in "$@"; do printf "%s\\n" "$a"; done > called-pip ;; *"import pip"*) exit 1 ;; esac\n'
    )
    python.write_text(script)
    python.chmod(0o755)
    done = checkout.make("sim", f"PYTHON={python}")
    assert "Set-up: virtual environment in .venv" in done.stdout
    assert checkout.called("pip")[-3:] == ["--quiet", "-e", ".[sim]"]
