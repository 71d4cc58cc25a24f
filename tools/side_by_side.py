"""Steps of a long job, each in a process of its own, on a machine that is lent for minutes; and their way home."""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
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


class Shown:
    """Prints how far a step is, at most every two seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, text: str, share: float) -> None:
        if time.monotonic() - self._last > POLL:
            self._last = time.monotonic()
            print(f"{100 * share:5.1f} % {text}", flush=True)


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
