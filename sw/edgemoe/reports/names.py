"""Names of results, so that no picture's are written over another's."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

__all__ = ["result_names"]


def result_names(paths: Sequence[Path | str], tasks: Sequence[str] = ("",)) -> list[str]:
    """The name of each picture's results, to which ``-TASK`` and a suffix are added; with ``/`` where it has a folder.

    The folders of the pictures are mirrored below the deepest one that holds them all, so pictures of one folder have
    plain names. The name is the picture's without its suffix; with it where another picture of that folder differs in
    nothing else; and with a number where it would still be another's, on a file system that does not tell upper from
    lower case too. Only the paths count, in their order, never what is on the disk. A path that comes twice has one
    name.

    Args:
        paths: the pictures
        tasks: of which there are results; two tasks may be called ``a`` and ``b-a``
    """
    files = [Path(os.path.abspath(path)) for path in paths]
    distinct = list(dict.fromkeys(files))
    plain = dict(zip(distinct, _relative(distinct), strict=True))
    stems = Counter(_key(str(name.with_suffix(""))) for name in plain.values())
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file, name in plain.items():
        is_alone = stems[_key(str(name.with_suffix("")))] == 1
        wanted = (name.with_suffix("") if is_alone else name).as_posix()
        number, chosen = 1, wanted
        while not taken.isdisjoint(results := {_key(f"{chosen}-{task}") for task in tasks}):
            number += 1
            chosen = f"{wanted}-{number}"
        taken |= results
        names[file] = chosen
    return [names[file] for file in files]


def _relative(files: Sequence[Path]) -> list[PurePath]:
    """Each below the deepest folder that holds all."""
    if not files:
        return []
    try:
        common = os.path.commonpath([file.parent for file in files])
    except ValueError:  # drives of Windows have none
        return [PurePath(*(part.rstrip(":\\/") for part in file.parts)) for file in files]
    return [file.relative_to(common) for file in files]


def _key(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
