"""Which format a file or folder has, and one entrance for all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgemoe_models.checkpoint import check_state
from edgemoe_models.importers.beside import TORCHVISION, facts_of_arguments, has_config, read_facts, read_folder
from edgemoe_models.importers.edge_moe import SUFFIX, import_edge_moe
from edgemoe_models.importers.facts import NOTHING
from edgemoe_models.importers.files import Tensors, read_arguments, read_checkpoint, read_ranks
from edgemoe_models.importers.m3vit import import_m3vit
from edgemoe_models.importers.names import plain_names
from edgemoe_models.importers.onnx_graph import import_onnx
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.other_networks import other_kind
from edgemoe_models.importers.timm import import_timm
from edgemoe_models.importers.translation import as_timm, join_queries, known_format
from edgemoe_models.storage.file_kind import is_onnx

FORMATS = ("timm", "huggingface", "torchvision", "onnx", "m3vit", "edge-moe")
#: Those whose tensors become timm's by renaming.
_PLAIN = ("timm", "huggingface", "torchvision")
_COMMON = {"name", "heads", "image_height", "image_width", "trained_grid", "activation", "eps"}
_NAMED = _COMMON | {"mean", "std", "prefix", "key"}
#: The options that each format reads.
_OPTIONS = {
    **dict.fromkeys(_PLAIN, _NAMED | {"pool", "norm", "positions"}),
    "onnx": {"name", "image_height", "image_width", "mean", "std"},
    "m3vit": _NAMED | {"tasks", "top_k", "seed_heads"},
    "edge-moe": _COMMON | {"tasks", "top_k", "seed_heads", "fill_missing"},
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
        elif format_name == "onnx" or (format_name is None and is_onnx(path)):
            _check_options("onnx", options)
            imported = import_onnx(path, options)
        else:
            imported = _import_named(path, options, format_name)
        if imported.graph is None:
            check_state(imported.state, imported.config)
    except ValueError as error:  # also of the model's config, and of check_state
        raise ImportRefused(f"{path}: {error}") from None
    return imported


def _import_named(path: Path, options: ImportOptions, format_name: str | None) -> Imported:
    """From tensors with names, in a file or a folder."""
    nesting: tuple[str, ...] = ()
    if path.is_dir() and has_config(path):
        found, facts = read_folder(path, options.key)
    elif path.is_dir():
        (found, nesting), facts = read_ranks(path, options.key), NOTHING
    else:
        (found, nesting), facts = read_checkpoint(path, options.key), facts_of_arguments(read_arguments(path))
    named = format_name or known_format(found)
    if named == "huggingface" and facts is NOTHING and has_config(path.parent) and not path.is_dir():
        facts = read_facts(path.parent)
    if named == "torchvision":
        facts = TORCHVISION
    tensors, renaming = plain_names(as_timm(found, named), options.prefix)
    format_name = named or detect(tensors)
    _check_options(format_name, options)
    if format_name == "m3vit":
        imported = import_m3vit(tensors, options)
    else:
        tensors = join_queries(tensors) if format_name == "huggingface" else tensors
        imported = import_timm(tensors, options, facts)
    return dataclasses.replace(imported, notes=(*imported.notes, *nesting, *renaming))


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
    if what := other_kind(tensors):
        raise ImportRefused(f"the network has what ours has not: {what}")
    first = ", ".join(sorted(tensors)[:4])
    raise ImportRefused(
        f"the names are neither timm's nor M3ViT's, Hugging Face's or torchvision's of a plain ViT, but {first}, ..."
    )
