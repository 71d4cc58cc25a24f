"""``make dist``: builds wheel and source distribution, and proves both in fresh environments without a checkout.

Usage: ``python tools/dist.py [--out build/dist] [--only base sim ...]``

Each environment is a new one below a folder whose name has a space and an umlaut; commands run in an empty folder
beside it, with nothing of the checkout on any path. ``installs.json`` in ``--out`` says what was installed and run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dist_place import Place
from dist_trials import ENVIRONMENTS, Environment, Trial
from interpreters import find_python
from package_contents import files_of, sdist_problems, wheel_problems

from edgemoe_models.storage.atomic import write_text

ROOT = Path(__file__).parents[1]
_TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Row:
    """One environment of the table: what was installed and what was run."""

    name: str
    extras: str
    python: str
    packages: int = 0
    trials: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def build(out: Path) -> tuple[Path, Path]:
    """Wheel and sdist, the wheel from the sdist; returns their paths."""
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], check=True, stdout=subprocess.PIPE)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def prove(environment: Environment, wheel: Path, folder: Path, say: Callable[[str], None]) -> Row:
    """Install the wheel with an environment's extras and run its trials."""
    python = Path(sys.executable) if environment.python is None else find_python(environment.python)
    row = Row(environment.name, ",".join(environment.extras) or "-", environment.python or _version())
    if python is None:
        row.problems.append(f"not tried: this machine has no Python {environment.python}")
        return row
    begin = time.monotonic()
    place = Place(folder / environment.name, python)
    extras = f"[{','.join(environment.extras)}]" if environment.extras else ""
    place.install(f"{wheel}{extras}")
    row.packages, before = place.packages(), place.installed_files()
    for trial in environment.trials(place, wheel):
        say(f"{environment.name}: {trial.title}")
        _try(place, trial, row)
    after = place.installed_files()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    row.problems += [f"{name} was written or changed in site-packages" for name in changed]
    row.seconds = round(time.monotonic() - begin, 1)
    return row


def _try(place: Place, trial: Trial, row: Row) -> None:
    begin = time.monotonic()
    code, output, messages = place.run(list(trial.command))
    problem = _judge(trial, code, output, messages)
    entry = {"title": trial.title, "expected": trial.expected, "ok": problem is None}
    row.trials.append({**entry, "seconds": round(time.monotonic() - begin, 1)})
    if problem is not None:
        row.problems.append(f"{trial.title}: {problem}\n{(output + messages).strip()[-1500:]}")


def _judge(trial: Trial, code: int, output: str, messages: str) -> str | None:
    """What is wrong with how a trial ended; None if it ended as expected."""
    if _TRACEBACK in output + messages:
        return "a traceback"
    missing = [text for text in trial.shows if text not in output + messages]
    if missing:
        return f"{missing[0]!r} is not in its output"
    if trial.refused:
        lines = messages.strip().splitlines()
        return (
            None
            if code == 1 and len(lines) == 1
            else f"exit code {code}, {len(lines)} lines: not a refusal in one line"
        )
    return None if code == 0 else f"exit code {code}"


def prove_sdist(sdist: Path, wheel: Path, folder: Path, say: Callable[[str], None]) -> Row:
    """The unpacked sdist's own tests pass, and the wheel that it gives has the same files."""
    row, begin = Row("sdist", "sim,dev", _version()), time.monotonic()
    place = Place(folder / "sdist", Path(sys.executable))
    with tarfile.open(sdist) as archive:
        archive.extractall(place.work, filter="data")
    (source,) = place.work.iterdir()
    say("sdist: installing what its tests need")
    place.install(f"{source}[sim,dev]", "-c", str(source / "constraints.txt"))
    row.packages = place.packages()
    tests = ["tests/test_packaging.py", "tests/hw/test_config.py", "tests/hw/test_isa.py", "tests/hw/test_regs.py"]
    for title, command in (
        ("python -m build --wheel", ["python", "-m", "build", "--wheel", "--no-isolation", "--outdir", "../again"]),
        (f"pytest {' '.join(tests)}", ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]),
    ):
        say(f"sdist: {title}")
        start = time.monotonic()
        code, output, messages = place.run(command, source)
        row.trials.append(
            {"title": title, "expected": "works", "ok": code == 0, "seconds": round(time.monotonic() - start, 1)}
        )
        if code:
            row.problems.append(f"{title}: exit code {code}\n{(output + messages)[-1500:]}")
    again = list((place.work / "again").glob("*.whl"))
    if [files_of(path) for path in again] != [files_of(wheel)]:
        row.problems.append("the wheel that is built from the unpacked sdist has other files")
    row.seconds = round(time.monotonic() - begin, 1)
    return row


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def table(rows: Iterable[Row]) -> str:
    """The pip-install matrix as text, 80 columns."""
    lines = [f"{'environment':13} {'extras':12} {'python':6} {'packages':>8} {'tried':>5} {'ok':>3} {'seconds':>8}"]
    for row in rows:
        good = sum(trial["ok"] for trial in row.trials)
        lines.append(
            f"{row.name:13} {row.extras:12} {row.python:6} {row.packages:8} {len(row.trials):5} {good:3} "
            f"{row.seconds:8.0f}"
        )
        lines += [f"    {trial['expected']:22} {trial['title']}" for trial in row.trials]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/dist.py", description="Build wheel and sdist, and prove them.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "dist", help="folder for both and installs.json")
    names = [environment.name for environment in ENVIRONMENTS] + ["sdist"]
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="environments to prove")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(f"dist: {text}", file=sys.stderr, flush=True)

    say("building wheel and sdist")
    wheel, sdist = build(options.out.resolve())
    problems = [f"{wheel.name}: {line}" for line in wheel_problems(wheel)]
    problems += [f"{sdist.name}: {line}" for line in sdist_problems(sdist)]
    with tempfile.TemporaryDirectory(prefix="edgemoe dist ü ") as name:
        folder = Path(name)
        rows = [prove(chosen, wheel, folder, say) for chosen in ENVIRONMENTS if chosen.name in options.only]
        if "sdist" in options.only:
            rows.append(prove_sdist(sdist, wheel, folder, say))
    problems += [f"{row.name}: {line}" for row in rows for line in row.problems]
    sizes = {path.name: path.stat().st_size for path in (wheel, sdist)}
    result = {"files": sizes, "environments": [vars(row) for row in rows], "problems": problems}
    write_text(options.out / "installs.json", json.dumps(result, indent=1) + "\n")
    print(table(rows))
    print("\n".join(f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()))
    for line in problems:
        say(line)
    print(f"{options.out}: {'NOT proved' if problems else 'wheel and sdist proved'}")
    return int(bool(problems))


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main())
