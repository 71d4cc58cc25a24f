"""What server and client of the Open Inference Protocol, version 2 (REST), have in common.

The protocol is KServe's and Triton's; binary tensors, the repository's index and ``timeout`` are Triton's extensions of
it. A message is a JSON document, behind which binary tensors may lie, one after the other, in the document's order; a
header then says where the document ends. docs/serve.md has what edgemoe adds: tensors of tasks, and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.storage.json_text import JsonError, parse_json

__all__ = [
    "BINARY_SIZE",
    "DATATYPES",
    "HEADER_LENGTH",
    "INPUT",
    "RAW",
    "ProtocolError",
    "TensorInfo",
    "input_info",
    "join_message",
    "output_infos",
    "path_of",
    "split_message",
]

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_SIZE = "binary_data_size"
INPUT = "image"
RAW = ".raw"  # no task's name has a dot
#: The protocol's names of types.
DATATYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "INT16": np.int16,
    "FP32": np.float32,
}


class ProtocolError(ValueError):
    """A message that is none of the protocol's; it says what is wrong with it."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a model.

    Attributes:
        name: as messages have it
        datatype: a key of ``DATATYPES``
        shape: of one image's; messages have the number of images before it
        task: whose it is; of the input ''
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    task: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's type, little endian as the protocol has it."""
        return np.dtype(DATATYPES[self.datatype]).newbyteorder("<")

    def size(self, images: int) -> int:
        """Bytes of so many images' tensors."""
        return images * int(np.prod(self.shape)) * self.dtype.itemsize

    def document(self) -> dict[str, Any]:
        """As a model's metadata have it: -1 stands for any number of images."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.shape]}


def input_info(model: ModelConfig) -> TensorInfo:
    """A model's only input: pictures as the runtime takes them, uint8 [N, H, W, 3]."""
    return TensorInfo(INPUT, "UINT8", (model.image_height, model.image_width, 3))


def output_infos(model: ModelConfig) -> tuple[TensorInfo, ...]:
    """A model's outputs, two a task: ``depth``, a prediction's ``values``, and ``depth.raw``, its ``raw``."""
    size = (model.image_height, model.image_width)
    infos = []
    for task in model.tasks:
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "segmentation": ("UINT8" if task.channels <= 256 else "UINT16", size),
            "depth": ("FP32", size),
            "normals": ("FP32", (*size, 3)),
            "edges": ("BOOL", size),
            "classification": ("FP32", (task.channels,)),
            "features": ("FP32", (task.channels,)),
        }
        infos.append(TensorInfo(task.name, *shapes[task.kind], task.name))
        rows = model.head_rows(task.name)[1]
        infos.append(TensorInfo(task.name + RAW, "INT16", (rows, task.head_outputs), task.name))
    return tuple(infos)


def path_of(model: str, version: str = "", action: str = "") -> str:
    """The path of a model, or of what can be done with it, below a server's address."""
    parts = ["v2/models", model, *(["versions", version] if version else []), *([action] if action else [])]
    return "/".join(parts)


def join_message(document: Mapping[str, Any], tensors: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """A message's body and headers. Numbers of the document are finite."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    if not tensors:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join((text, *tensors)), headers


def split_message(body: bytes, header_length: str | None, largest: int) -> tuple[Any, memoryview]:
    """The document of a message, None where it has none, and the binary tensors behind it.

    Args:
        header_length: what the header says; None: there is no header, and no tensor
        largest: bytes that the document may have

    Raises:
        ProtocolError: the header or the document is wrong
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal()) or len(header_length) > 12:
            raise ProtocolError(f"{HEADER_LENGTH} must be a number of bytes, not {header_length[:40]!r}")
        length = int(header_length)
    if length > len(body):
        raise ProtocolError(f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes")
    rest = memoryview(body)[length:]
    if header_length is not None and not length:
        return None, rest
    try:
        document = parse_json(body[:length], largest)
    except JsonError as error:
        raise ProtocolError(f"the message: {error}") from None
    if document is None:
        raise ProtocolError("the message must be an object, not null")
    return document, rest
