"""m3vit-tiny on scenes, then on CamVid, within the minutes for which a GPU is lent; ``--smoke`` tries it on a CPU.

Usage: ``python tools/train_photos.py --pack FILE [--out FOLDER] [--seconds S] [--workers N] [--smoke]``
       ``python tools/train_photos.py --unpack FOLDER [--out FOLDER]``

The steps are runs of ``edgemoe train``'s own loop, each in a process of its own: scenes with four tasks while others
generate them; then several heads and losses on CamVid side by side, of which the validation pictures choose. What
comes back fits a small door: weights as bfloat16, packed, in files of less than 16 MiB (``--unpack`` joins them at
home), and ``report.json`` with all options, losses, metrics and times. Files are written as soon as there are better
weights, so a run that is cut off loses little.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

from side_by_side import POLL, Shown, Step, follow, machine, parser, read_parts, work_folder, write_parts

from edgemoe_models.storage.atomic import write_bytes, write_text
from edgemoe_models.storage.json_text import parse_json, read_json
from edgemoe_models.storage.tensor_file import read_metadata

_START = 20.0  # that a step's process needs before it trains
_END = 16.0  # and after it, for the last evaluation and the files

#: Of every step; ``wall_clock`` because a lent machine's clock counts evaluations too.
COMMON: dict[str, Any] = {"preset": "m3vit-tiny", "device": "auto", "precision": "bfloat16", "wall_clock": True}
SCENES: dict[str, Any] = {
    "tasks": "segmentation,depth,normals,edges",
    "batch": 128,
    "learning_rate": 1e-3,
    "warmup": 150,
    "ema": 0.995,
    "train_scenes": 80_000,
    "val_scenes": 256,
    "evaluate_minutes": 1.0,
    "seed": 1,
}
PHOTOS: dict[str, Any] = {
    "data": "camvid",
    "tasks": "segmentation,edges",
    "batch": 32,
    "learning_rate": 6e-4,
    "weight_decay": 0.05,
    "warmup": 100,
    "layer_decay": 0.9,
    "drop_path": 0.1,
    "ema": 0.998,
    "augment": "strong",
    "mix": 0.5,
    "class_balance": 0.5,
    "train_scenes": 367,
    "val_scenes": 101,
    "evaluate_minutes": 0.5,
    "seed": 1,
}
#: What is tried on CamVid; ``scratch`` starts from random weights.
VARIANTS: dict[str, dict[str, Any]] = {
    "linear4": {"head_hidden": 0, "cells": 4},
    "hidden4": {"head_hidden": 192, "cells": 4},
    "hidden8": {"head_hidden": 192, "cells": 8},
    "hidden8-fast": {"head_hidden": 192, "cells": 8, "learning_rate": 1.2e-3, "layer_decay": 1.0},
    "scratch8": {"head_hidden": 192, "cells": 8, "layer_decay": 1.0, "init": ""},
}
#: Tried first, beside the scenes: what would fail on CamVid shall fail at once, not after half of the time.
CHECK: dict[str, Any] = {"steps": 3, "minutes": 0.0, "val_scenes": 8, "head_hidden": 8, "init": ""}
#: Of a trial on a CPU.
SMOKE_SCENES: dict[str, Any] = {"batch": 4, "train_scenes": 96, "val_scenes": 8, "warmup": 3, "evaluate_minutes": 0.1}
SMOKE_PHOTOS: dict[str, Any] = {"batch": 4, "val_scenes": 8, "warmup": 3, "evaluate_minutes": 0.1}


class Training(Step):
    """A run of ``edgemoe train``, whose weights are looked at while it goes on."""

    def weights(self) -> tuple[float, Path] | None:
        """Validation score and file of its best weights so far."""
        found = []
        for path in self._files():
            metrics = parse_json(read_metadata(path)["metrics"])
            found.append((metrics["segmentation"]["miou"], path))
        return max(found, key=lambda pair: pair[0]) if found else None

    def _files(self) -> list[Path]:
        """Of the best evaluation before the last one, and of the last step."""
        names = ("best.safetensors", f"{self.options['preset']}.safetensors")
        return [path for name in names if (path := self.folder / name).is_file()]

    def report(self) -> dict[str, Any]:
        """Options, time, losses and metrics so far."""
        best = self.weights()
        return super().report() | {
            "exit": self._process.poll(),
            "best_miou": best and best[0],
            "losses": _rows(self.folder / "log.csv", most=60),
            "metrics": _rows(self.folder / "metrics.csv"),
            "weights": {path.name: _told(path) for path in self._files()},
        }


def _told(path: Path) -> dict[str, Any]:
    """What a weights file says of itself."""
    metadata = read_metadata(path)
    seconds, steps = float(metadata["train_seconds"]), int(metadata["steps"])
    return {"steps": steps, "train_seconds": seconds, "metrics": parse_json(metadata["metrics"])}


def _rows(path: Path, most: int = 1 << 30) -> list[dict[str, str]]:
    """Of a CSV file; evenly chosen where there are more than ``most``."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[:: max(1, -(-len(rows) // most))]


def packed(path: Path) -> bytes:
    """A weights file as bfloat16, compressed: high bytes, whose exponents are much alike, and low bytes apart."""
    import torch

    from edgemoe_models.storage.torch_tensors import read_torch

    tensors, metadata = read_torch(path)
    from safetensors.torch import save

    content = save({name: value.to(torch.bfloat16) for name, value in tensors.items()}, dict(metadata))
    high, low = (zlib.compress(content[start::2], 6) for start in (1, 0))
    return len(content).to_bytes(8, "little") + len(high).to_bytes(8, "little") + high + low


def unpacked(content: bytes) -> bytes:
    """The weights file that ``packed`` took."""
    size, length = int.from_bytes(content[:8], "little"), int.from_bytes(content[8:16], "little")
    result = bytearray(size)
    result[1::2] = zlib.decompress(content[16 : 16 + length])
    result[0::2] = zlib.decompress(content[16 + length :])
    return bytes(result)


def send(name: str, path: Path, out: Path) -> list[str]:
    """Write weights to ``out`` in parts ``<name>.0``, ``<name>.1``, ...; returns their names."""
    return write_parts(packed(path), name, out)


def unpack(source: Path, out: Path) -> int:
    """Join what ``send`` wrote."""
    for name in ("scenes", "photos"):
        if content := read_parts(name, source):
            write_bytes(out / f"{name}.safetensors", unpacked(content))
            print(out / f"{name}.safetensors")
    return 0


class Run:
    """The whole run.

    Args:
        out: folder of what comes home
        pack: the data set, as ``tools/pack_photos.py`` makes it
        seconds: that all of it may take
        workers: processes that generate scenes
        smoke: whether it is a trial on a CPU
    """

    def __init__(self, out: Path, pack: Path, seconds: float, workers: int, smoke: bool) -> None:
        self.began = time.monotonic()
        self.out, self.seconds, self.smoke = out, seconds, smoke
        self.work = work_folder(out)
        self.data = self.work / "camvid"
        with tarfile.open(pack) as archive:
            shutil.rmtree(self.work, ignore_errors=True)
            archive.extractall(self.data, filter="data")
        out.mkdir(parents=True, exist_ok=True)
        self.workers = workers
        self.machine = machine()
        self.steps: list[Training] = []
        self.sent: dict[str, Any] = {}

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        print(f"[{self.spent():6.1f} s] {text}", flush=True)

    def report(self) -> None:
        """Write what is known so far."""
        report = {
            "machine": self.machine,
            "seconds": round(self.spent(), 1),
            "files": self.sent,
            "steps": {step.name: step.report() for step in self.steps},
        }
        write_text(self.out / "report.json", json.dumps(report, indent=1) + "\n")

    def start(self, name: str, options: dict[str, Any], until: float) -> Training:
        """Begin a step that trains up to second ``until`` of the run."""
        minutes = max(until - self.spent() - (3 if self.smoke else _START), 2.0) / 60
        step = Training(name, COMMON | {"minutes": round(minutes, 3)} | options, self.work, __file__)
        self.steps.append(step)
        self.say(f"{name}: {60 * minutes:.0f} seconds of training")
        return step

    def failed(self, steps: list[Training]) -> bool:
        """Whether one of the steps ended with an error; says it."""
        broken = [step for step in steps if not step.running() and step.report()["exit"]]
        for step in broken:
            self.say(f"{step.name} failed:\n{step.report()['output']}")
        return bool(broken)

    def send(self, name: str, step: Training, best: tuple[float, Path]) -> None:
        """Weights on their way home."""
        parts = send(name, best[1], self.out)
        self.sent[name] = {"parts": parts, "step": step.name, "file": best[1].name, "val_miou": best[0]}
        self.report()
        self.say(f"sent {name}: {step.name}, validation mIoU {100 * best[0]:.2f} %")

    def follow(self, name: str, steps: list[Training], until: float) -> None:
        """Until they have ended, or the time is up: send the best weights now and then."""
        left, every = until - self.spent(), 5.0 if self.smoke else 20.0
        follow(steps, left, self.say, every, lambda: self.best(name, steps))
        self.best(name, steps)

    def best(self, name: str, steps: list[Training]) -> Path | None:
        """Send the best weights of some steps if they are better than what was sent."""
        found = [(best, step) for step in steps if (best := step.weights())]
        if not found:
            self.report()
            return None
        best, step = max(found, key=lambda pair: pair[0][0])
        if best[0] > self.sent.get(name, {}).get("val_miou", -1.0):
            self.send(name, step, best)
        return best[1]

    def all(self) -> int:
        """Scenes, then photographs; returns the exit status."""
        end = self.seconds - (2 if self.smoke else _END)
        middle = 0.48 * self.seconds
        smoke = (SMOKE_SCENES, SMOKE_PHOTOS) if self.smoke else ({}, {})
        scenes = self.start("scenes", SCENES | {"workers": self.workers} | smoke[0], middle)
        photos = PHOTOS | {"data_root": str(self.data)} | smoke[1]
        check = self.start("check", photos | CHECK, middle)
        while check.running() and scenes.running():
            time.sleep(POLL)
        self.say(f"check: {check.seconds:.0f} seconds")
        if self.failed([check, scenes]):
            for step in (check, scenes):
                step.end()
            self.report()
            return 2
        self.follow("scenes", [scenes], middle + (60 if self.smoke else 25))
        start = self.best("scenes", [scenes])
        photos["init"] = str(start) if start else ""
        chosen = dict(list(VARIANTS.items())[2:3]) if self.smoke else VARIANTS
        steps = [self.start(name, photos | own, end) for name, own in chosen.items()]
        self.follow("photos", steps, self.seconds - 4 + (60 if self.smoke else 0))
        self.failed(self.steps)
        self.report()
        for step in self.steps:
            self.say(f"{step.name}: best validation mIoU {step.report()['best_miou']}")
        shutil.rmtree(self.work)
        return 0 if set(self.sent) == {"scenes", "photos"} else 1


def step(folder: Path) -> int:
    """Run a step of this folder's options in this process."""
    import torch

    from edgemoe_models.train.config import TrainConfig
    from edgemoe_models.train.loop import run

    torch.set_num_threads(1)
    show = Shown()
    options = read_json(folder / "options.json")
    print(json.dumps(run(TrainConfig(**options), folder, folder / "cache", False, show)), flush=True)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = parser(__file__, __doc__, "build/photos")
    options.add_argument("--workers", type=int, default=12, help="processes that generate scenes")
    chosen = options.parse_args(arguments)
    if chosen.step:
        return step(chosen.step)
    if chosen.unpack:
        return unpack(chosen.unpack, chosen.out)
    return Run(chosen.out, chosen.pack, chosen.seconds, chosen.workers, chosen.smoke).all()


if __name__ == "__main__":
    sys.exit(main())
