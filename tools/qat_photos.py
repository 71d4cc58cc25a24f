"""m3vit-tiny-camvid's quantization-aware training, within the minutes for which a GPU is lent.

Usage: ``python tools/qat_photos.py [--pack FILE] [--out FOLDER] [--seconds S] [--smoke]`` on the GPU's machine,
       ``python tools/qat_photos.py --latent NAME [--out FOLDER]`` there, for the Brevitas model of a variant,
       ``python tools/qat_photos.py --unpack FOLDER [--out FOLDER]`` at home

Variants of ``edgemoe qat``'s own loop run side by side, a process each. The validation pictures choose one for experts
of 8 bits and one of 4. Their integer graphs come home in files of less than 16 MiB, with ``report.json``: all options,
losses, metrics and times. Latent weights are too large to come with them, hence ``--latent``.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

from side_by_side import Shown, Step, follow, machine, parser, read_parts, work_folder, write_parts

from edgemoe_models.storage.atomic import write_bytes, write_text
from edgemoe_models.storage.json_text import read_json

_END = 60.0  # that a variant needs after training: its graph, and the validation pictures on one core
_WEIGHTS = "models/edgemoe_models/weights/m3vit-tiny-camvid-00001-of-00002.safetensors"
#: Of the variants; the same for every ``--out``, so that ``--latent`` finds it.
_WORK = Path("build/qat-photos")

COMMON: dict[str, Any] = {
    "weights": _WEIGHTS,
    "data": "camvid",
    "batch": 32,
    "warmup": 50,
    "ema": 0.998,
    "augment": "strong",
    "mix": 0.5,
    "class_balance": 0.5,
    "val_scenes": 101,
    "save_minutes": 60.0,
    "seed": 1,
}
#: Shares of distillation, and rates that the float model's nearness allows.
TRIED: dict[str, dict[str, Any]] = {
    "half": {"distill": 0.5, "learning_rate": 5e-5},
    "most": {"distill": 0.9, "learning_rate": 1e-4},
    "all": {"distill": 1.0, "learning_rate": 3e-5},
}
VARIANTS = {f"w{bits}-{name}": options | {"expert_bits": bits} for bits in (8, 4) for name, options in TRIED.items()}
#: Of a trial: little of everything.
SMOKE: dict[str, Any] = {"val_scenes": 4}


def stem(options: dict[str, Any]) -> str:
    """Of a variant's files."""
    return f"m3vit-tiny-camvid-w{options['expert_bits']}a8"


class Variant(Step):
    """A variant in a process of its own."""

    def __init__(self, name: str, options: dict[str, Any], work: Path) -> None:
        super().__init__(name, COMMON | options, work, __file__)

    def metrics(self) -> dict[str, Any] | None:
        """Of the graph on the validation pictures; None before the end."""
        path = self.folder / "metrics.json"
        return read_json(path) if path.is_file() else None

    def report(self) -> dict[str, Any]:
        """Options, time and metrics so far."""
        return super().report() | {"metrics": self.metrics()}


def score(metrics: dict[str, Any]) -> float:
    """What the validation pictures choose by, larger is better."""
    return float(metrics["segmentation"]["miou"] + metrics["edges"]["f1"])


def run(pack: Path, out: Path, seconds: float, names: list[str], smoke: bool) -> int:
    """All variants, then what comes home; returns the exit status."""
    began = time.monotonic()

    def spent() -> float:
        return time.monotonic() - began

    work = work_folder(_WORK)
    with tarfile.open(pack) as archive:
        shutil.rmtree(work, ignore_errors=True)
        archive.extractall(work / "camvid", filter="data")
    out.mkdir(parents=True, exist_ok=True)
    own = {"data_root": str(work / "camvid"), "until": time.time() + seconds - (15 if smoke else _END)}
    own |= SMOKE if smoke else {}
    variants = [Variant(name, VARIANTS[name] | own, work) for name in names]
    left = seconds + (120 if smoke else 0) - spent()
    follow(variants, left, lambda text: print(f"[{spent():6.1f} s] {text}", flush=True))
    chosen = _send(variants, out)
    report = {"machine": machine(), "seconds": round(spent(), 1), "chosen": chosen}
    report["variants"] = {one.name: one.report() for one in variants}
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    for one in variants:
        print(one.name, json.dumps(one.metrics()) if one.metrics() else one.output()[-1500:], flush=True)
    print(json.dumps(chosen), flush=True)
    return 0 if all(one.metrics() for one in variants) else 1


def _send(variants: list[Variant], out: Path) -> dict[str, str]:
    """The best graph of each precision, in parts; returns the variants' names by the graphs'."""
    done = [(score(metrics), one) for one in variants if (metrics := one.metrics())]
    chosen: dict[str, str] = {}
    for _, one in sorted(done, key=lambda pair: -pair[0]):
        name = stem(one.options)
        if name not in chosen:
            chosen[name] = one.name
            content = (one.folder / f"{name}.graph.safetensors").read_bytes()
            write_parts(zlib.compress(content, 6), f"{name}.graph", out)
    return chosen


def send_latent(name: str, out: Path) -> int:
    """A variant's Brevitas model in parts: each of the four bytes of its numbers by itself, whose signs and exponents
    are much alike."""
    variant = work_folder(_WORK) / name
    if not (variant / "metrics.json").is_file():
        print(f"{variant} has no variant that has ended", file=sys.stderr)
        return 1
    name = stem(read_json(variant / "options.json"))
    content = (variant / f"{name}.safetensors").read_bytes()
    out.mkdir(parents=True, exist_ok=True)
    planes = [zlib.compress(content[start::4], 6) for start in range(4)]
    head = b"".join(len(part).to_bytes(8, "little") for part in (content, *planes))
    write_parts(head + b"".join(planes), f"{name}.latent", out)
    return 0


def latent(content: bytes) -> bytes:
    """The file that ``send_latent`` took."""
    sizes = [int.from_bytes(content[start : start + 8], "little") for start in range(0, 40, 8)]
    result, at = bytearray(sizes[0]), 40
    for start, size in enumerate(sizes[1:]):
        result[start::4] = zlib.decompress(content[at : at + size])
        at += size
    return bytes(result)


def unpack(source: Path, out: Path) -> int:
    """Join what was sent."""
    firsts = sorted(source.glob("*.0"))
    if not firsts:
        print(f"{source} has no parts, *.0, *.1, ...", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    for first in firsts:
        name = first.name.removesuffix(".0")
        content = read_parts(name, source)
        if name.endswith(".latent"):
            path, content = out / f"{name.removesuffix('.latent')}.safetensors", latent(content)
        else:
            path, content = out / f"{name}.safetensors", zlib.decompress(content)
        write_bytes(path, content)
        print(path)
    return 0


def step(folder: Path) -> int:
    """Run the variant of this folder's options in this process."""
    import torch

    from edgemoe_models.qat import loop
    from edgemoe_models.qat.config import QatOptions
    from edgemoe_models.qat.trainer import QatTrainer

    torch.set_num_threads(1)
    options = read_json(folder / "options.json")
    until = options.pop("until")
    trainer = QatTrainer.start(QatOptions(**options, minutes=1.0), folder.parent / "cache" / folder.name)
    # What starting took is known only now: the schedule ends with the lease.
    minutes = max(until - time.time(), 2.0) / 60
    trainer.options = dataclasses.replace(trainer.options, minutes=minutes)
    metrics = loop.finish(trainer, folder, folder.parent / "cache" / folder.name, Shown())
    told = {"steps": trainer.step, "train_seconds": round(trainer.seconds, 1)}
    write_text(folder / "metrics.json", json.dumps(metrics | told))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = parser(__file__, __doc__, "build/qat-photos")
    options.add_argument("--only", default=",".join(VARIANTS), help="variants, between commas")
    options.add_argument("--latent", help="send this variant's Brevitas model")
    chosen = options.parse_args(arguments)
    if chosen.step:
        return step(chosen.step)
    if chosen.unpack:
        return unpack(chosen.unpack, chosen.out)
    if chosen.latent:
        return send_latent(chosen.latent, chosen.out)
    names = chosen.only.split(",")
    if unknown := [name for name in names if name not in VARIANTS]:
        options.error(f"--only must be among {', '.join(VARIANTS)}, not {', '.join(unknown)}")
    return run(chosen.pack, chosen.out, chosen.seconds, names, chosen.smoke)


if __name__ == "__main__":
    sys.exit(main())
