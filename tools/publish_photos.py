"""The weights that came home from ``tools/train_photos.py``, as the repository holds them: parts of bfloat16.

Usage: ``python tools/publish_photos.py WEIGHTS [--out FOLDER]``

The config gets the model's own name and the classes' names, the metadata the notice that CamVid's pictures are for
research; paths of the machine that trained are left out. The integer graph is then made by ``edgemoe quantize``
(docs/model_cards/m3vit-tiny-camvid.md has the command).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "models"))

from edgemoe_models.config import ModelConfig  # noqa: E402
from edgemoe_models.datasets.camvid import NOTICE  # noqa: E402
from edgemoe_models.storage.json_text import parse_json  # noqa: E402
from edgemoe_models.storage.shards import shard_name, split_tensors  # noqa: E402

__all__ = ["MODEL", "main", "publish", "published_metadata"]

MODEL = "m3vit-tiny-camvid"
MOST = 24_000_000  # bytes of the tensors of a part


def published_metadata(metadata: dict[str, str], name: str = MODEL) -> dict[str, str]:
    """Metadata of the parts, from that of the weights file that training wrote.

    Raises:
        ValueError: the model has no segmentation with the classes that the metadata names
    """
    classes = tuple(parse_json(metadata["class_names"]))
    config = ModelConfig.from_json(metadata["config"])
    tasks = tuple(
        dataclasses.replace(task, labels=classes if task.kind == "segmentation" else ()) for task in config.tasks
    )
    train: dict[str, Any] = parse_json(metadata["train"])
    train["data_root"] = ""
    train["init"] = "m3vit-tiny on scenes, of the same run" if train["init"] else ""
    return metadata | {
        "config": dataclasses.replace(config, name=name, tasks=tasks).to_json(),
        "train": json.dumps(train),
        "notice": NOTICE,
    }


def publish(weights: Path, out: Path, name: str = MODEL, most: int = MOST) -> list[Path]:
    """Write the parts; returns them.

    Args:
        weights: what ``tools/train_photos.py --unpack`` joined
        out: folder of the parts
        name: of the model
        most: bytes of the tensors of a part

    Raises:
        ValueError: the file cannot be read, or is of another data set
        SaveError: a part cannot be written
    """
    import torch

    from edgemoe_models.storage.torch_tensors import read_torch, write_torch

    tensors, metadata = read_torch(weights)
    small = {key: value.to(torch.bfloat16) for key, value in sorted(tensors.items())}
    runs = split_tensors({key: 2 * value.numel() for key, value in small.items()}, most)
    paths = [out / shard_name(name, number, len(runs)) for number in range(1, len(runs) + 1)]
    for path, names in zip(paths, runs, strict=True):
        write_torch(path, {key: small[key] for key in names}, published_metadata(metadata, name))
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/publish_photos.py", description="Weights as parts of bfloat16.")
    parser.add_argument("weights", type=Path, help="photos.safetensors of tools/train_photos.py --unpack")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "edgemoe_models" / "weights", help="folder")
    chosen = parser.parse_args(arguments)
    for path in publish(chosen.weights, chosen.out):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
