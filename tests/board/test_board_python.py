"""What ``make flash`` copies, on the Pythons that boards have: PYNQ 3.0's 3.10 with NumPy 1.21, and older images'.

The interpreters are other ones than the one that runs the tests; where this machine has none, the test is skipped and
says so.
"""

import ast
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from interpreters import find_python

import edgemoe
from edgemoe.boards import load_board
from edgemoe.boards.bitstream import publish
from edgemoe.boards.flash import stage
from edgemoe.bundle import Bundle
from edgemoe_models.storage.cache import cache_root

BOARD = load_board("pynq-z2")
PACKAGE = Path(edgemoe.__file__).parent
BUNDLE = PACKAGE / "bundles" / "m3vit-micro-w8a8-pynq-z2.emoe"
NUMPY = "1.21.6"  # the last 1.21
SELFTEST = ["-m", "edgemoe.runtime.selftest", "--device", "reference", "--bundle", "bundle.emoe", "--images", "1"]
OUTPUTS = """
import hashlib
import numpy as np, edgemoe
bundle = edgemoe.Bundle.load("bundle.emoe")
print(bundle.config.content_hash)
image = np.random.default_rng(5).integers(0, 256, (bundle.model.image_height, bundle.model.image_width, 3), np.uint8)
with edgemoe.open("reference", bundle) as accelerator:
    for task in bundle.tasks:
        print(task, hashlib.sha256(accelerator.run(image, task).raw.tobytes()).hexdigest())
print(np.__version__)
"""


@pytest.fixture
def copied(tmp_path):
    """The folder that goes onto the board."""
    work = tmp_path / "work"
    work.mkdir()
    for name, text in (("edgemoe.bit", "bits"), ("edgemoe.hwh", "<EDKSYSTEM/>"), ("result.json", '{"wns_ns": 0.1}')):
        (work / name).write_text(text)
    return stage(BOARD, publish(BOARD, work, tmp_path / "out"), BUNDLE, tmp_path / "out")


def run(python: Path | str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "lib", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([str(python), *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def board_python():
    """Python 3.10 with NumPy 1.21 and nothing else, as PYNQ 3.0 has them; kept in the cache."""
    python = find_python("3.10")
    if python is None:
        pytest.skip("this machine has no Python 3.10 (PATH, pyenv, uv)")
    folder = cache_root() / f"board-python-numpy-{NUMPY}"
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([str(python), "-m", "venv", str(folder)], check=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"numpy=={NUMPY}"]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"NumPy {NUMPY} cannot be installed here: {made.stderr.strip().splitlines()[-1:]}")
        (folder / "made").touch()
    return folder / "bin" / "python"


def test_oldest_python_of_a_board(board_python, copied):
    """The copied files pass the self-test there, and every output has the bits that it has here."""
    done = run(board_python, *SELFTEST, folder=copied)
    assert done.returncode == 0 and done.stdout.endswith("self-test passed\n"), done.stderr
    bundle = Bundle.load(BUNDLE)
    size = (bundle.model.image_height, bundle.model.image_width, 3)
    image = np.random.default_rng(5).integers(0, 256, size, np.uint8)
    with edgemoe.open("reference", bundle) as accelerator:
        raws = {task: accelerator.run(image, task).raw.tobytes() for task in bundle.tasks}
    there = run(board_python, "-c", OUTPUTS, folder=copied)
    assert there.stdout.splitlines() == [
        bundle.config.content_hash,
        *(f"{task} {hashlib.sha256(raw).hexdigest()}" for task, raw in raws.items()),
        NUMPY,
    ], there.stderr


def test_first_file_is_readable_by_old_pythons():
    """It is what says that the Python is too old, so an old one must be able to read it."""
    ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("version", ["3.8", "3.9"])
def test_older_python(copied, version):
    """One line says which Python is needed; PYNQ 2.7 has 3.8."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version} (PATH, pyenv, uv)")
    done = run(python, *SELFTEST, folder=copied)
    assert done.returncode == 1 and done.stdout == ""
    assert f"edgemoe needs Python 3.10 or newer, and this is {version} (PYNQ has 3.10 from its image" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_script_says_that_the_python_is_too_old(copied, program):
    program("python3", 'case "$*" in *version_info*) exit 1;; --version) echo Python 3.8.10;; *) echo started;; esac')
    done = subprocess.run(["bash", str(copied / "selftest.sh")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    message = "this board has Python 3.8.10; 3.10 is needed, which PYNQ has from its image 3.0 on"
    assert done.stderr == f"edgemoe: {message}\n"


def test_what_is_copied(copied):
    """Sources, and what the servers need: weights, other bundles and boards' data are the computer's."""
    names = [path.relative_to(copied / "lib") for path in (copied / "lib").rglob("*") if path.is_file()]
    assert {path.suffix for path in names} <= {".py", ".typed", ".html", ".css", ".js", ".svg", ".ipynb", ".cfg"}
    assert len(names) > 100
