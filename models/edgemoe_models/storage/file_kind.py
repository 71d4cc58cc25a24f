"""What a file is that came to the wrong door, and which command takes it: by its first bytes, not by its name.

A safetensors file is told by its metadata; whose it is stands in the keys below.
"""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

from edgemoe_models.storage.tensor_file import TensorFileError, read_metadata

__all__ = ["BUNDLE_KEY", "CHECKPOINT_KEY", "GRAPH_KEY", "LATENT_KEY", "describe", "is_importable"]

#: Metadata keys of our files: a compiled bundle, an integer graph, a model with its config, latent weights of QAT.
BUNDLE_KEY, GRAPH_KEY, CHECKPOINT_KEY, LATENT_KEY = "edgemoe_bundle", "edgemoe_graph", "config", "qat"

_STATE_DICT = "save the network's state dict under timm's names as .safetensors, and import that with: edgemoe import"
_IMPORT = "make a model of it with: edgemoe import {name} --out MODEL.safetensors"
_PICTURE = "is a picture; pictures come after the bundle: edgemoe run BUNDLE {name}"
#: First bytes of files that people have beside a model.
_MAGIC = {
    b"\x80\x02": f"is a torch file or a Python pickle; {_IMPORT}",
    b"\x80\x03": f"is a torch file or a Python pickle; {_IMPORT}",
    b"\x80\x04": f"is a torch file or a Python pickle; {_IMPORT}",
    b"\x80\x05": f"is a torch file or a Python pickle; {_IMPORT}",
    b"\x89HDF\r\n\x1a\n": f"is an HDF5 file, as Keras writes it; {_STATE_DICT}",
    b"\x93NUMPY": f"is a NumPy array; {_STATE_DICT}",
    b"GGUF": f"is a GGUF file; {_STATE_DICT}",
    b"\x89PNG\r\n\x1a\n": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"GIF8": _PICTURE,
    b"\x1f\x8b": "is compressed (gzip); unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is compressed (7z); unpack it first",
    b"\xfd7zXZ": "is compressed (xz); unpack it first",
    b"<!DOCTYPE": "is a web page: the download did not give the file",
    b"<html": "is a web page: the download did not give the file",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: fetch it with git lfs pull",
}
_ONNX = f"is an ONNX file; {_IMPORT}"


def describe(path: Path | str, wanted: str | None = None) -> str | None:
    """``is a ...; do ...``, to be said after the file's name; None for what is not known. Commands are to be copied.

    Args:
        path: of the file
        wanted: metadata key of the kind that the door takes: of such a file, damaged then, nothing is said
    """
    text = _describe(Path(path), wanted)
    return None if text is None else text.format(name=shlex.quote(str(path)))


def is_importable(path: Path | str) -> bool:
    """Whether it is what ``edgemoe import`` reads, or nothing known."""
    text = _describe(Path(path))
    return text is None or text.endswith(_IMPORT)


def is_onnx(path: Path | str) -> bool:
    """Whether it is a file that its content, or else its name, says is ONNX."""
    return _describe(Path(path)) == _ONNX


def _describe(path: Path, wanted: str | None = None) -> str | None:
    try:
        if path.is_dir():
            return f"is a folder; {_IMPORT}"
        return _tensors(path, wanted) or _foreign(path) if path.is_file() else None
    except OSError:
        return None


def _tensors(path: Path, wanted: str | None) -> str | None:
    try:
        metadata = read_metadata(path)
    except (TensorFileError, OSError):
        return None
    if wanted in metadata:
        return None
    if BUNDLE_KEY in metadata:
        return "is a compiled bundle, not a model; use it with: edgemoe run {name} PICTURE"
    if GRAPH_KEY in metadata:
        return "is an integer graph, which is quantized already; compile it with: edgemoe compile --model {name}"
    if LATENT_KEY in metadata:
        return "holds latent weights of quantization-aware training; use the graph that was written beside them"
    if CHECKPOINT_KEY in metadata:
        return "is a float checkpoint; quantize and compile it with: edgemoe compile --model {name}"
    return f"is a safetensors file of another project; {_IMPORT}"


def _foreign(path: Path) -> str | None:
    with path.open("rb") as file:
        first = file.read(64)
    if first.startswith(b"PK\x03\x04"):
        return _archive(path)
    if first[4:8] == b"TFL3":
        return f"is a TensorFlow Lite file; {_STATE_DICT}"
    for magic, text in _MAGIC.items():
        if first.startswith(magic):
            return text
    return _ONNX if path.suffix.lower() == ".onnx" or _is_onnx(first) else None


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "is a damaged zip archive; copy it again"
    if any(name.endswith("data.pkl") for name in names):
        return f"is a torch file; {_IMPORT}"
    if names and all(name.endswith(".npy") for name in names):
        return f"is an archive of NumPy arrays; {_STATE_DICT}"
    return "is a zip archive; unpack it first"


def _is_onnx(first: bytes) -> bool:
    """An ONNX model is a protobuf message that begins with its ``ir_version`` (3 to 31) and then has another field."""
    return (
        len(first) > 2 and first[0] == 0x08 and 3 <= first[1] < 32 and first[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42)
    )
