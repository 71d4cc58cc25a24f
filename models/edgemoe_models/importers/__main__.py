"""Command line of the importers; docs/importers.md has examples.

Usage: ``python -m edgemoe_models.importers FILE_OR_FOLDER --to OUT.safetensors [--format F] [options]``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path

import safetensors.numpy
from PIL import Image

from edgemoe_models.importers import (
    FORMATS,
    Imported,
    ImportOptions,
    ImportRefused,
    import_checkpoint,
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edgemoe_models.importers", description="Import a checkpoint of timm / DeiT, M3ViT or Edge-MoE."
    )
    parser.add_argument("source", type=Path, help="file (.safetensors, .pth) or folder")
    parser.add_argument("--to", type=Path, required=True, help="float checkpoint to write (.safetensors)")
    parser.add_argument("--format", choices=FORMATS, help="detected unless given")
    parser.add_argument("--name", help="the model's name (default: the written file's)")
    parser.add_argument("--heads", type=int, help="attention heads (default: width / 64; m3vit: must be given)")
    parser.add_argument("--image-height", type=int, help="pixels")
    parser.add_argument("--image-width", type=int, help="pixels")
    for field, meaning in (("mean", "mean"), ("std", "deviation")):
        parser.add_argument(
            f"--{field}",
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"{meaning} of the training images in 0..1 (default: ImageNet's; not for edge-moe)",
        )
    parser.add_argument("--tasks", help="NAME=KIND:CHANNELS,... in the order of the gates (m3vit, edge-moe)")
    parser.add_argument("--top-k", type=int, help="experts a token visits (m3vit; edge-moe: 2)")
    parser.add_argument("--seed-heads", type=int, metavar="SEED", help="heads of seeded values (m3vit; edge-moe: 0)")
    parser.add_argument("--fill-missing", type=int, metavar="SEED", help="missing experts get seeded values (edge-moe)")
    return parser


def write(imported: Imported, source: Path, out: Path) -> list[Path]:
    """Write the checkpoint, and the image beside it if there is one; return the files."""
    out.parent.mkdir(parents=True, exist_ok=True)
    origin = {"source": source.name, "notes": imported.notes, "unused": imported.unused}
    metadata = {"config": imported.config.to_json(), "imported": json.dumps(origin)}
    safetensors.numpy.save_file(imported.state, out, metadata)
    if imported.image is None:
        return [out]
    picture = out.with_suffix(".png")
    Image.fromarray(imported.image).save(picture)
    return [out, picture]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    given = vars(_parser().parse_args(arguments))
    source, out = given["source"], given["to"]
    fields = {field.name: given[field.name] for field in dataclasses.fields(ImportOptions)}
    stem = re.sub(r"\W+", "-", out.stem).strip("-")
    fields["name"] = fields["name"] or (stem if stem[:1].isalpha() else f"model-{stem}")
    fields |= {field: tuple(fields[field]) for field in ("mean", "std") if fields[field] is not None}
    try:
        imported = import_checkpoint(source, ImportOptions(**fields), given["format"])
        files = write(imported, source, out)
    except (ImportRefused, OSError) as error:
        print(f"importers: {error}", file=sys.stderr)
        return 1
    c = imported.config
    experts = f", {c.num_experts} experts of {c.expert_hidden} (top-{c.top_k})" if c.num_experts else ""
    print(
        f"{', '.join(map(str, files))}: {c.image_height} x {c.image_width}, patch {c.patch}, width {c.dim}, "
        f"{c.depth} blocks, {c.heads} heads, MLP {c.mlp_hidden}{experts}, "
        f"tasks {', '.join(task.name for task in c.tasks)}"
    )
    for note in imported.notes:
        print(f"note: {note}")
    for name in imported.unused:
        print(f"not used: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
