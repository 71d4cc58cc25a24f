"""The plain reader gives what safetensors gives, and refuses what it refuses."""

import json
import sys

import numpy as np
import pytest
import safetensors.numpy

from edgemoe_models.tensor_file import TensorFileError, read_tensors

TYPES = ("u1", "i1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "?")


@pytest.fixture(params=["safetensors", "plain"])
def reader(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "safetensors", None)
    return request.param


@pytest.fixture
def content(rng):
    tensors = {
        name: rng.integers(0, 2, shape).astype(name)
        for name, shape in zip(TYPES, [(3, 5), (), (0,), (7,), (1, 2, 3)] * 3, strict=False)
    }
    return tensors, safetensors.numpy.save(tensors, {"note": "é", "empty": ""})


def test_same_tensors(reader, content, tmp_path):
    tensors, raw = content
    (tmp_path / "x").write_bytes(raw)
    found, metadata = read_tensors(tmp_path / "x")
    assert metadata == {"note": "é", "empty": ""} and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        np.testing.assert_array_equal(found[name], tensor)


def test_no_metadata(reader, tmp_path):
    header = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\x05\x06")
    found, metadata = read_tensors(tmp_path / "x")
    assert metadata == {} and found["a"].tolist() == [5, 6]


def damaged(raw):
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    yield from (
        b"",
        raw[:5],
        raw[:8],
        raw[:50],
        raw[: 8 + length],
        raw[:-1],
        b"\xff" * 8 + raw[8:],
        b"junk" * 10,
        raw[:8] + b"[" + raw[9:],
    )
    for change in ({"dtype": "U9"}, {"shape": [99]}, {"data_offsets": [0, 1 << 40]}, {"data_offsets": [5, 3]}):
        text = json.dumps({**header, "u1": {**header["u1"], **change}}).encode()
        yield len(text).to_bytes(8, "little") + text + raw[8 + length :]


def test_damaged(reader, content, tmp_path):
    for wrong in damaged(content[1]):
        (tmp_path / "x").write_bytes(wrong)
        with pytest.raises(TensorFileError):
            read_tensors(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none")
    with pytest.raises(TensorFileError):
        read_tensors(tmp_path)
