"""``edgemoe import``: a checkpoint of another project as a float checkpoint of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import fields_as_options
from edgemoe.cli.output import say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.fitting import advice, fit_table
from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.importers import FORMATS, ImportOptions, import_checkpoint, save_imported

__all__ = ["command"]


@fields_as_options(ImportOptions)
def command(
    source: Annotated[
        Path, typer.Argument(help="file (.safetensors, .pth, .onnx) or folder (with config.json)", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="float checkpoint to write (.safetensors)", show_default=False)],
    format_name: Annotated[
        str | None, typer.Option("--format", help=f"one of {', '.join(FORMATS)}; detected unless given")
    ] = None,
    **given: Any,
) -> None:
    """Import a plain ViT of timm, Hugging Face or torchvision, an ONNX file, M3ViT or Edge-MoE (docs/importers.md)."""
    if format_name not in (None, *FORMATS):
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format_name!r}")
    output_file(out, [source])
    stem = re.sub(r"\W+", "-", out.stem).strip("-")
    given.setdefault("name", stem if stem[:1].isalpha() else f"model-{stem}")
    with working(f"importing {source}"):
        imported = import_checkpoint(source, ImportOptions(**given), format_name)
        files = save_imported(imported, source, out)
    c = imported.config
    experts = f", {c.num_experts} experts of {c.expert_hidden} (top-{c.top_k})" if c.num_experts else ""
    activation = "" if c.activation == "gelu" else f", {ACTIVATIONS[c.activation]}"
    say(
        f"{', '.join(map(str, files))}: {c.image_height} x {c.image_width}, patch {c.patch}, width {c.dim}, "
        f"{c.depth} blocks, {c.heads} heads, MLP {c.mlp_hidden}{experts}{activation}, "
        f"tasks {', '.join(task.name for task in c.tasks)}"
    )
    say(advice(c))
    show(fit_table(c))
    for text in imported.notes:
        say(f"note: {text}")
    for name in imported.unused:
        say(f"not used: {name}")
