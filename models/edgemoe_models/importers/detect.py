"""Which format a file or folder has, and one entrance for all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgemoe_models.checkpoint import check_state
from edgemoe_models.importers.edge_moe import SUFFIX, import_edge_moe
from edgemoe_models.importers.files import Tensors, read_checkpoint, read_ranks
from edgemoe_models.importers.m3vit import import_m3vit
from edgemoe_models.importers.names import plain_names
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.timm import import_timm

FORMATS = ("timm", "m3vit", "edge-moe")
_FROM_TENSORS = {"timm": import_timm, "m3vit": import_m3vit}
_COMMON = {"name", "heads", "image_height", "image_width", "trained_grid", "activation", "eps"}
_NAMED = _COMMON | {"mean", "std", "prefix", "key"}
#: The options that each format reads.
_OPTIONS = {
    "timm": _NAMED | {"pool"},
    "m3vit": _NAMED | {"tasks", "top_k", "seed_heads"},
    "edge-moe": _COMMON | {"tasks", "top_k", "seed_heads", "fill_missing"},
}


#: Parts of names by which other libraries' Vision Transformers are known.
_ELSEWHERE = {
    "embeddings.patch_embeddings.projection": "these are Hugging Face's",
    "encoder.layers.encoder_layer_": "these are torchvision's",
    "vision_model.": "these are CLIP's or SigLIP's",
    "transformer.resblocks.": "these are CLIP's",
    "layers.0.blocks.": "this is a Swin Transformer, which has windows of attention",
}


def import_checkpoint(path: Path, options: ImportOptions, format_name: str | None = None) -> Imported:
    """Import a file or folder; its format is detected unless given.

    Raises:
        ImportRefused: one message says all that is wrong with it.
    """
    if not path.exists():
        raise ImportRefused(f"{path}: there is no such file or folder")
    try:
        if format_name == "edge-moe" or (format_name is None and path.is_dir() and any(path.glob(f"*{SUFFIX}"))):
            _check_options("edge-moe", options)
            imported = import_edge_moe(path, options)
        else:
            found, nesting = read_ranks(path, options.key) if path.is_dir() else read_checkpoint(path, options.key)
            tensors, renaming = plain_names(found, options.prefix)
            format_name = format_name or detect(tensors)
            _check_options(format_name, options)
            imported = _FROM_TENSORS[format_name](tensors, options)
            imported = dataclasses.replace(imported, notes=(*imported.notes, *nesting, *renaming))
        check_state(imported.state, imported.config)
    except ValueError as error:  # also of the model's config, and of check_state
        raise ImportRefused(f"{path}: {error}") from None
    return imported


def _check_options(format_name: str, options: ImportOptions) -> None:
    given = {field.name for field in dataclasses.fields(options) if getattr(options, field.name) is not None}
    if wrong := sorted(given - _OPTIONS[format_name]):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
        raise ImportRefused(f"the format {format_name} has no use for {names}: leave it out")


def detect(tensors: Tensors) -> str:
    """``timm`` or ``m3vit``, by the names of the tensors."""
    if any(".experts.htoh4." in name for name in tensors):
        return "m3vit"
    if "patch_embed.proj.weight" in tensors:
        return "timm"
    if "patch_embed.weight" in tensors:
        raise ImportRefused("this is a checkpoint of edgemoe already, nothing has to be imported")
    first = ", ".join(sorted(tensors)[:4])
    whose = next((whose for mark, whose in _ELSEWHERE.items() if any(mark in name for name in tensors)), None)
    hint = f": {whose}; timm has the same networks, whose state_dict() can be imported" if whose else ""
    raise ImportRefused(f"the names are neither timm's nor M3ViT's, but {first}, ...{hint}")
