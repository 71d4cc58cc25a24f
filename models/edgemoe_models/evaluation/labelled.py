"""Pictures of one's own with the class of each, by folders or in a CSV, or with a mask of classes beside each."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemoe_models.config import TaskConfig
from edgemoe_models.pictures import PICTURE_SUFFIXES, PictureError, picture_files, shown

__all__ = ["ClassNames", "LabelError", "Labelled", "evenly", "from_csv", "from_folders", "from_masks"]

_MOST = 4  # names in a message
_HEADER = ("file", "label")


class LabelError(ValueError):
    """A folder or a list of labels cannot be used; one line that names what is wrong in it."""


@dataclass(frozen=True)
class Labelled:
    """A picture and what is in it.

    Attributes:
        name: its path within the folder, as text that JSON takes
        path: its file
        label: number of its class; -1 where it has a mask
        mask: file of the class of each pixel; None where the whole picture has one
    """

    name: str
    path: Path
    label: int = -1
    mask: Path | None = None


class ClassNames:
    """A task's classes by what people call them: the whole name, one of its parts between commas, or the number.

    Upper and lower case are the same, and so are underscores and spaces.
    """

    def __init__(self, task: TaskConfig) -> None:
        self.task = task
        self._whole, self._parts = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
        for number, name in enumerate(task.labels):
            self._whole[_plain(name)].add(number)
            for part in name.split(","):
                self._parts[_plain(part)].add(number)

    def find(self, text: str) -> int | None:
        """The number of the class that is called so; None where there is none.

        Raises:
            LabelError: several classes are
        """
        for names in (self._whole, self._parts):
            if found := sorted(names.get(_plain(text), ())):
                if len(found) > 1:
                    numbers = ", ".join(map(str, found))
                    raise LabelError(f"{text!r} is the name of the classes {numbers}; give the number instead")
                return found[0]
        digits = (text.lstrip("0") or "0") if text.isascii() and text.isdecimal() else ""
        return int(digits) if 0 < len(digits) < 10 and int(digits) < self.task.channels else None

    def known(self) -> str:
        """What there is, for a message."""
        names = ", ".join(self.task.labels[:_MOST]) if self.task.labels else "without names"
        return f"{self.task.channels} classes ({names}{', ...' if len(self.task.labels) > _MOST else ''})"


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def from_folders(folder: Path, task: TaskConfig, by_order: bool = False) -> list[Labelled]:
    """All pictures of a folder that has a folder for each class, as torchvision's ImageFolder reads it.

    A folder is called as its class, or by the class's number. Those of a model whose classes have no names are the
    classes in sorted order, unless all are called by numbers. What is hidden does not count; a class may have none.

    Args:
        folder: of the folders
        task: a classification
        by_order: the folders are the classes in sorted order, whatever they are called

    Raises:
        LabelError: there is no such folder, it has no folders of pictures, or one is of no class of the model's
        PictureError: a folder cannot be read
    """
    names = _class_folders(folder)
    known = ClassNames(task)
    if by_order or not (task.labels or all(name.isascii() and name.isdecimal() for name in names)):
        if len(names) != task.channels:
            raise LabelError(
                f"{shown(folder)}: in sorted order its {len(names)} folders would be the classes, but the model has "
                f"{known.known()}; call each folder by its class's {'name or ' if task.labels else ''}number"
            )
        numbers = {name: number for number, name in enumerate(names)}
    else:
        numbers = _numbered(folder, names, known)
    return _not_empty(folder, (one for name in names for one in _of_class(folder, name, numbers[name])))


def _class_folders(folder: Path) -> list[str]:
    _check_folder(folder, "pictures")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise LabelError(
            f"{shown(folder)}: it has no folders, one for each class; pictures beside each other need a list of their "
            f"labels (--labels) or masks (--masks)"
        )
    return names


def _check_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise LabelError(f"{shown(folder)}: {'a file, no' if folder.exists() else 'there is no such'} folder of {what}")


def _numbered(folder: Path, names: Sequence[str], known: ClassNames) -> dict[str, int]:
    """The number of each folder's class."""
    numbers: dict[str, int] = {}
    owners: dict[int, str] = {}
    for name in names:
        try:
            number = known.find(name)
        except LabelError as error:
            raise LabelError(f"{shown(folder / name)}: {error}") from None
        if number is None:
            strange = [other for other in names if other not in numbers and known.find(other) is None]
            more = f", and so are {len(strange) - 1} other folders" if len(strange) > 1 else ""
            raise LabelError(
                f"{shown(folder / name)}: {name!r} is no class of the model, which has {known.known()}{more}; call "
                f"folders by names or numbers of classes, or say --by-order if in sorted order they are the classes"
            )
        if number in owners:
            raise LabelError(
                f"{shown(folder / name)}: its class {number} has the folder {owners[number]!r} already; put them "
                f"together"
            )
        numbers[name] = number
        owners[number] = name
    return numbers


def _of_class(folder: Path, name: str, number: int) -> Iterator[Labelled]:
    names = (Path(file) for _, _, files in os.walk(folder / name) for file in files)
    if any(file.suffix.lower() in PICTURE_SUFFIXES for file in names):
        for path in picture_files(folder / name, recursive=True):
            yield Labelled(_name(path, folder), path, number)


def _name(path: Path, folder: Path) -> str:
    return os.fsencode(path.relative_to(folder).as_posix()).decode(errors="backslashreplace")


def _not_empty(folder: Path, found: Iterable[Labelled]) -> list[Labelled]:
    result = list(found)
    if not result:
        raise LabelError(f"{shown(folder)}: there are no pictures in its folders")
    return result


def from_csv(path: Path, folder: Path, task: TaskConfig) -> list[Labelled]:
    """The pictures that a CSV lists: ``file,label`` a line, the label a name or number of the model's classes.

    Args:
        path: of the CSV, in UTF-8; a first line ``file,label`` is its header
        folder: in which its files are
        task: a classification

    Raises:
        LabelError: it cannot be read, or a line of it is wrong, which the message names
    """
    _check_folder(folder, "pictures")
    known, found = ClassNames(task), dict[str, Labelled]()
    for number, row in _rows(path):
        where = f"{shown(path)}, line {number}"
        if len(row) != 2:
            raise LabelError(f"{where}: it must be file,label with one comma, or quotes around a name with more")
        file, text = row
        if "\0" in file or not (folder / file).is_file():
            raise LabelError(f"{where}: there is no file {file!r} in {shown(folder)}")
        try:
            label = known.find(text)
        except LabelError as error:
            raise LabelError(f"{where}: {error}") from None
        if label is None:
            raise LabelError(f"{where}: {text!r} is no class of the model, which has {known.known()}")
        name = os.path.normpath(file)
        if name in found:
            raise LabelError(f"{where}: {file!r} has a line already")
        found[name] = Labelled(name, folder / file, label)
    if not found:
        raise LabelError(f"{shown(path)}: it lists no pictures; a line is file,label")
    return list(found.values())


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, without spaces at the ends of cells, and without a header."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError(f"{shown(path)}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise LabelError(f"{shown(path)}: it is not text in UTF-8; save it as CSV in UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not (reader.line_num == 1 and tuple(map(str.casefold, cells)) == _HEADER):
                yield reader.line_num, cells
    except csv.Error as error:
        raise LabelError(f"{shown(path)}, line {reader.line_num}: {error}") from None


def from_masks(folder: Path, masks: Path) -> list[Labelled]:
    """All pictures of a folder and of its subfolders, each with the PNG of the same path in the folder of masks.

    Raises:
        LabelError: there is no such folder, or a picture has no mask
        PictureError: the folder has no pictures, or cannot be read
    """
    _check_folder(folder, "pictures")
    _check_folder(masks, "masks")
    inside = masks.resolve()
    found = []
    for path in picture_files(folder, recursive=True):
        if inside != folder.resolve() and path.resolve().is_relative_to(inside):
            continue
        mask = masks / path.relative_to(folder).with_suffix(".png")
        if not mask.is_file():
            raise LabelError(f"{shown(path)}: its mask {shown(mask)} is missing")
        if mask.resolve() == path.resolve():
            raise LabelError(f"{shown(path)}: it would be its own mask; --masks is another folder")
        found.append(Labelled(_name(path, folder), path, mask=mask))
    if not found:
        raise PictureError(f"{shown(folder)}: no pictures in this folder but masks")
    return found


def evenly(found: Sequence[Labelled], count: int | None) -> list[Labelled]:
    """At most ``count`` of them, evenly spaced: pictures of a class lie together. None: all.

    Raises:
        ValueError: ``count`` is below 1
    """
    if count is None:
        return list(found)
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    return [found[len(found) * number // count] for number in range(count)] if len(found) > count else list(found)
