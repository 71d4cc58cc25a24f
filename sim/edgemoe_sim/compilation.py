"""From Verilator's C++ to a program or library, by the compiler itself: no make, no shell, so no quoting of paths."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import is_sealed, seal
from edgemoe_sim.verilator import BuildError, Verilator

__all__ = ["CXX_FLAGS", "LEVELS", "Sources", "compile_objects", "compiler", "cpu", "link", "run"]

# Several configurations' libraries live in one process: a unique symbol would make them share statics, among them the
# table of memories, whose size differs.
CXX_FLAGS = ("-std=gnu++20", "-fPIC", "-pthread", "-march=native", "-w", "-fno-gnu-unique")
# Functions are split because gcc takes minutes over one of 10,000 lines; __Slow files run once, at construction.
FAST, RUNTIME, SLOW = "-O2", "-O1", "-O0"
LEVELS = (FAST, RUNTIME, SLOW)  # for keys of caches

# Every file costs a second for Verilator's headers alone, so what is quick to compile is compiled together.
_TOGETHER_BYTES = 4 << 20
_SMALL_BYTES = 64 << 10


def compiler() -> str:
    """Path of the C++ compiler: ``$CXX`` or g++."""
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        raise BuildError(
            f"{name} is missing; it is needed to build the simulator. "
            f"Install it, on Debian with: sudo apt-get install g++"
        )
    return path


def run(command: Sequence[str], cwd: Path, environment: dict[str, str] | None = None) -> None:
    """Run a tool; BuildError with its last lines if it fails."""
    # Tools quote paths in whatever encoding they like, and cut messages in the middle of a letter.
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, errors="replace")
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()
        raise BuildError(f"{Path(command[0]).name} failed ({result.returncode}):\n" + "\n".join(lines[-30:]))


@dataclass(frozen=True)
class Sources:
    """What is compiled for one design.

    Attributes:
        work: folder that Verilator has written, where objects go
        prefix: of the files in it
        harness: C++ source around the design
        runtime: sources of Verilator's, by name
        defines: for all of them
    """

    work: Path
    prefix: str
    harness: Path
    runtime: Sequence[str]
    defines: Sequence[str]


@dataclass(frozen=True)
class _Unit:
    files: tuple[Path, ...]
    target: Path
    level: str

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def compile_objects(
    sources: Sources, verilator: Verilator, cache: Path, progress: Callable[[float], None] = lambda share: None
) -> list[str]:
    """Compile in parallel; returns the object files.

    Args:
        cache: folder for the objects of Verilator's own sources, which all designs share
        progress: told the share that is done
    """
    include = verilator.include
    flags = [f"-I{sources.work}", f"-I{include}", f"-I{include / 'vltstd'}", *sources.defines]
    units = _units(sources)
    shared = _runtime_folder(verilator, sources.defines, cache)
    runtime = [_Unit((include / name,), shared / f"{Path(name).stem}.o", RUNTIME) for name in sources.runtime]
    # The largest first, so that the workers end together.
    missing = [unit for unit in runtime if not is_sealed(unit.target)]
    todo = sorted([*units, *missing], key=lambda unit: -unit.bytes)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, _ in enumerate(pool.map(lambda unit: _compile(unit, flags, sources.work), todo), 1):
            progress(done / len(todo))
    for unit in missing:
        seal(unit.target)
    return [str(unit.target) for unit in [*units, *runtime]]


def _units(sources: Sources) -> list[_Unit]:
    """What is compiled together: fast files by themselves, small ones and slow ones in one each."""
    units: list[_Unit] = []
    together: dict[str, list[Path]] = {FAST: [], SLOW: []}
    for file in sorted(sources.work.glob(f"{sources.prefix}*.cpp")):
        level = SLOW if "__Slow" in file.name else FAST
        if level == FAST and file.stat().st_size >= _SMALL_BYTES:
            units.append(_Unit((file,), file.with_suffix(".o"), level))
        else:
            together[level].append(file)
    together[FAST].append(sources.work / shutil.copyfile(sources.harness, sources.work / sources.harness.name).name)
    for level, files in together.items():
        group: list[Path] = []
        for file in files:
            group.append(file)
            if file is files[-1] or sum(path.stat().st_size for path in group) > _TOGETHER_BYTES:
                number = len(units)
                units.append(_Unit(tuple(group), sources.work / f"together{number}.o", level))
                group = []
    return units


def _compile(unit: _Unit, flags: Sequence[str], work: Path) -> None:
    """Several files are included by one; the object appears by a rename, since others may want the same."""
    if len(unit.files) == 1:
        source = unit.files[0]
    else:
        source = unit.target.with_suffix(".cc")
        write_text(source, "".join(f'#include "{file.name}"\n' for file in unit.files))
    target = work / f"{unit.target.stem}.part.o"
    run([compiler(), *CXX_FLAGS, unit.level, *flags, "-c", str(source), "-o", str(target)], work)
    os.replace(target, unit.target)


def _runtime_folder(verilator: Verilator, defines: Sequence[str], cache: Path) -> Path:
    version = (verilator.include / "verilated_config.h").read_bytes()
    text = repr((version, str(verilator.root), CXX_FLAGS, RUNTIME, tuple(defines), compiler(), cpu()))
    folder = cache / f"runtime-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def link(objects: Sequence[str], flags: Sequence[str], target: Path) -> None:
    """Link object files; ``target`` appears by a rename."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        run([compiler(), "-pthread", "-o", str(made), *objects, *flags], target.parent)
        os.replace(made, target)


def cpu() -> str:
    """What ``-march=native`` depends on: a cache that moves to another machine must not be used there."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        import platform

        return platform.processor()
    match = re.search(r"^(flags|Features)\s*:.*$", text, re.M)
    return match[0] if match else ""
