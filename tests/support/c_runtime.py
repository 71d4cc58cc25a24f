"""Builds sw/c as the tests want it, for this machine and for a board's processors, and runs its example."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from edgemoe_models.storage.cache import cache_root

SOURCES = Path(__file__).parents[2] / "sw" / "c"
SANITIZED = {"SANITIZE": "address,undefined", "CFLAGS": "-O1 -g"}


@dataclass(frozen=True)
class Processor:
    """A board's processor: Debian's names of its compiler and emulator, and where that finds libraries."""

    name: str
    triple: str
    emulator: str

    @property
    def package(self) -> str:
        return f"gcc-{self.triple} and qemu-user-static"

    def command(self) -> list[str]:
        """What starts its programs here; skips where this machine has no such compiler or emulator."""
        if shutil.which(f"{self.triple}-gcc") is None or shutil.which(self.emulator) is None:
            pytest.skip(f"this machine cannot compile for {self.name} and run that: install {self.package}")
        return [self.emulator, "-L", f"/usr/{self.triple}"]


PROCESSORS = {
    "armhf": Processor("armhf", "arm-linux-gnueabihf", "qemu-arm-static"),
    "arm64": Processor("arm64", "aarch64-linux-gnu", "qemu-aarch64-static"),
}


def build(target: str = "edgemoe-run", cross: str = "", variables: Mapping[str, str] = MappingProxyType({})) -> Path:
    """The program, made by ``make`` in the cache; every warning is an error."""
    if shutil.which("make") is None or shutil.which(f"{cross}gcc") is None:
        pytest.skip(f"this machine has no make or no {cross}gcc")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "one")  # two makes in one folder would see each other's halves
    folder = cache_root() / "c" / worker / "-".join([cross or "native", *sorted(variables)]).lower()
    settings = [f"OUT={folder}", f"CROSS={cross}", *(f"{name}={value}" for name, value in variables.items())]
    command = ["make", "-s", "-C", str(SOURCES), *settings, str(folder / target)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0 and made.stderr == "", made.stdout + made.stderr
    return folder / target


def build_with_library(
    source: Path, program: str, cross: str = "", variables: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """A program of one source of the tests', linked with the runtime."""
    library = build("libedgemoe.a", cross, variables)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_POSIX_C_SOURCE=200809L"]
    if "SANITIZE" in variables:
        flags.append(f"-fsanitize={variables['SANITIZE']}")
    path = library.parent / program
    command = [f"{cross}gcc", *flags, f"-I{SOURCES / 'include'}", "-o", str(path), str(source), str(library)]
    made = subprocess.run([*command, "-ldl", "-lm"], capture_output=True, text=True)
    assert made.returncode == 0 and made.stderr == "", made.stderr
    return path


def run(*command: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the example; sanitizers' reports fail the test, and so does another exit status."""
    environment = {**os.environ, "ASAN_OPTIONS": "exitcode=99", "UBSAN_OPTIONS": "exitcode=99:print_stacktrace=1"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done


def refused(*command: str | Path) -> str:
    """The one line that says why a command was refused."""
    done = run(*command, status=1)
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("edgemoe: ") and len(lines[0]) < 560, done.stderr
    return lines[0].removeprefix("edgemoe: ")
