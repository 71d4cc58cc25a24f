"""Bundles' files with anything in them, and a hash that fits."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import METADATA_KEY, Bundle, digest
from edgemoe_models.storage.tensor_file import read_tensors, write_tensors

__all__ = ["Parts", "at", "parts_of", "put", "read_parts", "sealed", "write_parts"]

Bytes = npt.NDArray[np.uint8]
Parts = tuple[Any, dict[str, Bytes]]


def read_parts(path: Path) -> Parts:
    """Document and tensors of a bundle's file."""
    tensors, metadata = read_tensors(path)
    return json.loads(json.loads(metadata[METADATA_KEY])["document"]), tensors


def parts_of(bundle: Bundle, folder: Path) -> Parts:
    """Document and tensors of a bundle, as a file in ``folder`` has them."""
    bundle.save(folder / "x.emoe")
    return read_parts(folder / "x.emoe")


def write_parts(path: Path, document: Any, tensors: Mapping[str, Bytes]) -> None:
    """A file with this document and these tensors, and the hash of them; ``document`` may be text."""
    text = document if isinstance(document, str) else json.dumps(document, sort_keys=True)
    stored = json.dumps({"document": text, "sha256": digest(tensors, text)})
    write_tensors(path, tensors, {METADATA_KEY: stored})


def sealed(path: Path, parts: Parts) -> Bundle:
    """What loading a file of these parts gives."""
    write_parts(path, *parts)
    return Bundle.load(path)


def at(document: Any, place: str) -> Any:
    """The value at ``a.b.0.c``."""
    for key in place.split(".") if place else ():
        document = document[int(key) if isinstance(document, list) else key]
    return document


def put(document: Any, place: str, value: Any) -> Any:
    """A copy of the document with another value at ``a.b.0.c``."""
    result = copy.deepcopy(document)
    parent, _, key = place.rpartition(".")
    owner = at(result, parent)
    owner[int(key) if isinstance(owner, list) else key] = value
    return result
