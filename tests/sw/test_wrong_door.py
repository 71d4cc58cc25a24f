"""A file of another kind than a command takes: the answer names what it is and the verb that takes it."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from edgemoe_models.config import PRESETS
from edgemoe_models.storage.file_kind import describe, is_importable

IMPORT = "edgemoe import {name} --out MODEL.safetensors"


def _zip(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return content.getvalue()


def _npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


def _png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (2, 2)).save(content, "PNG")
    return content.getvalue()


def _tensors(metadata: dict[str, str] | None = None) -> bytes:
    return safetensors.numpy.save({"head.weight": np.zeros((2, 2), np.float32)}, metadata)


#: Name, content, what is said of it, whether ``edgemoe import`` may read it.
FILES: list[tuple[str, bytes, tuple[str, ...], bool]] = [
    ("net.onnx", b"\x08\x0a\x12\x07pytorch", ("is an ONNX file", IMPORT), True),
    ("net", b"\x08\x08:\x97\x01\n\x05", ("is an ONNX file", IMPORT), True),
    ("net.pth.tar", _zip("archive/data.pkl", "archive/data/0"), ("is a torch file", IMPORT), True),
    ("net.ckpt", _zip("net/data.pkl"), ("is a torch file", IMPORT), True),
    ("pytorch_model.bin", b"\x80\x02\x8a\nl\xfc\x9cF", ("is a torch file or a Python pickle", IMPORT), True),
    ("net.pkl", b"\x80\x04\x95", ("a Python pickle", IMPORT), True),
    ("net.h5", b"\x89HDF\r\n\x1a\n", ("is an HDF5 file, as Keras writes it", ".safetensors"), False),
    ("net.tflite", b"\x1c\0\0\0TFL3", ("is a TensorFlow Lite file",), False),
    ("net.gguf", b"GGUF\3\0\0\0", ("is a GGUF file",), False),
    ("net.npz", _zip("a.npy", "b.npy"), ("is an archive of NumPy arrays",), False),
    ("net.npy", _npy(), ("is a NumPy array",), False),
    ("net.zip", _zip("readme.txt"), ("is a zip archive; unpack it first",), False),
    ("net.zip", _zip("a")[:-5], ("is a damaged zip archive",), False),
    ("net.tar.gz", b"\x1f\x8b\x08\0", ("is compressed (gzip); unpack it first",), False),
    ("photo.png", _png(), ("is a picture", "edgemoe run BUNDLE {name}"), False),
    (
        "net.safetensors",
        b"version https://git-lfs.github.com/spec/v1\n",
        ("a pointer of Git LFS", "git lfs pull"),
        False,
    ),
    ("net.safetensors", b"<!DOCTYPE html><html>", ("is a web page: the download did not give the file",), False),
    ("net.safetensors", _tensors(), ("is a safetensors file of another project", IMPORT), True),
    ("net.safetensors", _tensors({"format": "pt"}), ("is a safetensors file of another project", IMPORT), True),
    ("net.emoe", _tensors({"edgemoe_bundle": "{}"}), ("is a compiled bundle", "edgemoe run {name} PICTURE"), False),
    (
        "x.safetensors",
        _tensors({"config": "{}", "qat": "{}"}),
        ("latent weights of quantization-aware training",),
        False,
    ),
]


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "said", "importable"), FILES, ids=[f"{i}-{f[0]}" for i, f in enumerate(FILES)]
)
def test_every_door_says_what_it_is(edgemoe, tmp_path, name, content, said, importable):
    path, out = _written(tmp_path, name, content), tmp_path / "out"
    parts = [part.format(name=path) for part in said]  # as it was given, so that the advice can be copied
    edgemoe("compile", "--model", path, "--out", out).refused(str(path), *parts)
    edgemoe("quantize", path, "--out", out).refused(str(path), *parts)
    if "bundle" not in said[0]:
        edgemoe("info", path).refused(str(path), *parts)
    if not importable:
        edgemoe("import", path, "--out", out).refused(str(path), *parts)
    assert is_importable(path) == importable
    assert not out.exists()


def test_our_own_files_at_the_wrong_door(edgemoe, tmp_path):
    model, out = PRESETS["deit-tiny"].to_json(), tmp_path / "out"
    checkpoint = _written(tmp_path, "net.safetensors", _tensors({"config": model}))
    graph = _written(tmp_path, "net.graph.safetensors", _tensors({"edgemoe_graph": "{}"}))
    for path, what in (
        (checkpoint, "is a float checkpoint; quantize and compile it with: edgemoe compile --model {path}"),
        (
            graph,
            "is an integer graph, which is quantized already; compile it with: edgemoe compile --model {path}",
        ),
    ):
        what = what.format(path=path)
        edgemoe("info", path).refused(f"{path} {what}")
        edgemoe("run", path, tmp_path / "x.png").refused(f"{path} {what}")
        edgemoe("import", path, "--out", out).refused(f"{path}: it {what}")
    edgemoe("quantize", graph, "--out", out).refused(f"{graph} is an integer graph")


def test_folders_and_what_nothing_is_known_of(tmp_path):
    assert (
        describe(tmp_path) == f"is a folder; make a model of it with: edgemoe import {tmp_path} --out MODEL.safetensors"
    )
    spaced = tmp_path / "my files"
    spaced.mkdir()
    assert f"edgemoe import '{spaced}' --out" in str(describe(spaced))
    assert describe(tmp_path / "missing") is None
    for content in (b"", b"text", b"\x08"):
        assert describe(_written(tmp_path, "file", content)) is None
