"""Names as a network's own: without what wrappers put before them, and of one network where a file holds several."""

from __future__ import annotations

import re

from edgemoe_models.importers.files import Tensors
from edgemoe_models.importers.options import ImportRefused

#: Every network has it once, in timm's names and in M3ViT's.
_ANCHOR = "patch_embed.proj.weight"
#: What torch.compile, FSDP and activation checkpointing put between names.
_BETWEEN = re.compile(r"(?:(?<=\.)|^)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def plain_names(tensors: Tensors, prefix: str | None = None) -> tuple[Tensors, tuple[str, ...]]:
    """Tensors under the network's own names, and what was done to them.

    Lightning, DataParallel and others put ``model.``, ``module.``, ``backbone.``, ``encoder.`` before the names, also
    several in a row. Names beside the network (a head that is not in the backbone) lose the part that they share.

    Args:
        tensors: as the file has them
        prefix: of the wanted network, needed where there are several

    Raises:
        ImportRefused: there are several networks, or none of this prefix, or two names become one
    """
    inner = _renamed({name: _BETWEEN.sub("", name) for name in tensors})
    found = [name.removesuffix(_ANCHOR) for name in inner.values() if f".{name}".endswith(f".{_ANCHOR}")]
    chosen = _choose(found, prefix)
    left_out = [root for other in found if other != chosen and (root := _root(other, chosen))]
    if any(other != chosen and chosen.startswith(other) for other in found):  # the other one's names have less before
        left_out.append("the network around it")
        inner = {old: name for old, name in inner.items() if name.startswith(chosen)}
    new = {old: _without(name, chosen) for old, name in inner.items() if not name.startswith(tuple(left_out))}
    notes = []
    if any(_BETWEEN.search(name) for name in tensors):
        notes.append("what torch.compile and other wrappers put between names was taken out of them")
    if chosen:
        notes.append(f"names begin with {chosen}, which a wrapper put there: taken off")
    if left_out:
        notes.append(f"{len(tensors) - len(new)} tensors of {', '.join(left_out)} left out")
    return {name: tensors[old] for old, name in _renamed(new).items()}, tuple(notes)


def _choose(found: list[str], prefix: str | None) -> str:
    if prefix is not None:
        wanted = prefix.rstrip(".") + "." if prefix.rstrip(".") else ""
        if wanted not in found:
            known = ", ".join(repr(name) for name in found) or "none"
            raise ImportRefused(f"no network's names begin with {wanted!r}; there are: {known}")
        return wanted
    if len(found) > 1:
        raise ImportRefused(
            f"the file holds {len(found)} networks, with names that begin with {', '.join(map(repr, found))}: "
            "choose one with --prefix"
        )
    return found[0] if found else ""


def _root(other: str, chosen: str) -> str:
    """The shortest prefix that another network's names have and the chosen one's have not; "" if there is none."""
    parts = other.split(".")[:-1]
    roots = [".".join(parts[: i + 1]) + "." for i in range(len(parts))]
    return next((root for root in roots if not chosen.startswith(root)), "")


def _without(name: str, prefix: str) -> str:
    """A name without the longest part of the prefix, in whole words, that it begins with."""
    while prefix and not name.startswith(prefix):
        prefix = prefix[: prefix[:-1].rfind(".") + 1]
    return name[len(prefix) :]


def _renamed(names: dict[str, str]) -> dict[str, str]:
    """Old names to new ones, which must differ."""
    seen: dict[str, str] = {}
    for old, new in names.items():
        if (first := seen.setdefault(new, old)) != old:
            raise ImportRefused(f"{first} and {old} are both {new} without their wrappers' prefixes")
    return names
