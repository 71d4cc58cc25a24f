"""Steps of a long job, each in a process of its own, on a machine that is lent for minutes; and their way home."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "models"))  # a lent machine has a checkout and nothing installed from it

from edgemoe_models.storage.atomic import write_bytes, write_text  # noqa: E402

PART = 15 * 2**20  # bytes of a file on its way home
POLL = 2.0  # seconds
_ROOM = 12 * 2**30  # bytes that all steps together may need


class Step:
    """A step in a process of its own.

    Args:
        name: of its folder below ``work``
        options: written to ``options.json`` there
        work: folder for all steps
        tool: the script that runs it, as ``python TOOL --step FOLDER``
    """

    def __init__(self, name: str, options: dict[str, Any], work: Path, tool: str) -> None:
        self.name, self.options, self.folder = name, options, work / name
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "options.json", json.dumps(options))
        self.began = time.monotonic()
        self.seconds = 0.0
        with (self.folder / "output.txt").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", tool, "--step", str(self.folder)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def running(self) -> bool:
        """Whether it goes on."""
        if self._process.poll() is None:
            return True
        self.seconds = self.seconds or time.monotonic() - self.began
        return False

    def end(self) -> None:
        """End it now."""
        if self.running():
            self._process.terminate()
            self._process.wait()
            self.running()

    def output(self) -> str:
        """What it has printed so far."""
        return (self.folder / "output.txt").read_text(errors="replace")

    def last_line(self) -> str:
        """Of its output."""
        return next(reversed(self.output().splitlines()), "")

    def report(self) -> dict[str, Any]:
        """Options, time and the output's end so far."""
        seconds = self.seconds or time.monotonic() - self.began
        return {"options": self.options, "seconds": round(seconds, 1), "output": self.output()[-1500:]}


def follow(
    steps: Sequence[Step],
    seconds: float,
    say: Callable[[str], None],
    every: float = 20.0,
    then: Callable[[], object] = lambda: None,
) -> None:
    """Until all have ended or the time is up: tell now and then how far they are. Ends those that still run.

    Args:
        steps: that were started
        seconds: that they may take
        say: told each one's last line
        every: seconds between that
        then: called after that
    """
    began = time.monotonic()
    said = -every
    try:
        while [one for one in steps if one.running()] and (spent := time.monotonic() - began) < seconds:
            if spent - said >= every:
                said = spent
                for one in steps:
                    say(f"{one.name}: {one.last_line()}")
                then()
            time.sleep(POLL)
    finally:
        for one in steps:
            one.end()


class Shown:
    """Prints how far a step is, at most every two seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, text: str, share: float) -> None:
        if time.monotonic() - self._last > POLL:
            self._last = time.monotonic()
            print(f"{100 * share:5.1f} % {text}", flush=True)


def parser(tool: str, about: str, out: str) -> argparse.ArgumentParser:
    """What the tools' command lines have in common: those of the lent machine, of home (``--unpack``), and ``--step``.

    Args:
        tool: its file
        about: its docstring
        out: default of ``--out``
    """
    result = argparse.ArgumentParser(prog=f"python tools/{Path(tool).name}", description=about.splitlines()[0])
    result.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", out)))
    result.add_argument("--pack", type=Path, default=Path("build/carry/camvid.tar"))
    result.add_argument("--seconds", type=float, default=540.0, help="that all of it may take")
    result.add_argument("--smoke", action="store_true", help="a trial of a minute or two on a CPU")
    result.add_argument("--unpack", type=Path, help="join the files of this folder, in --out")
    result.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    return result


def machine() -> dict[str, Any]:
    """What it runs on."""
    import numpy
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "card": card,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def work_folder(out: Path) -> Path:
    """Folder of the steps, whose checkpoints are too large for the way home: in memory, if it is there already or
    there is room."""
    memory = Path("/dev/shm")
    folder = memory / f"{out.name}-{os.getuid()}"
    if folder.is_dir() or (memory.is_dir() and shutil.disk_usage(memory).free > _ROOM):
        return folder
    return out.resolve().parent / f"{out.name}-work"


def write_parts(content: bytes, name: str, out: Path) -> list[str]:
    """Write ``content`` to ``out`` as ``<name>.0``, ``<name>.1``, ..., without earlier ones; returns their names."""
    for earlier in _parts(name, out):
        earlier.unlink()
    parts = [content[start : start + PART] for start in range(0, len(content), PART)]
    for index, part in enumerate(parts):
        write_bytes(out / f"{name}.{index}", part)
    return [f"{name}.{index}" for index in range(len(parts))]


def read_parts(name: str, source: Path) -> bytes:
    """The content of ``write_parts``; empty if there is none."""
    return b"".join(part.read_bytes() for part in _parts(name, source))


def _parts(name: str, folder: Path) -> list[Path]:
    """The parts that there are, in their order."""
    numbered = (folder / f"{name}.{index}" for index in itertools.count())
    return list(itertools.takewhile(Path.is_file, numbered))
