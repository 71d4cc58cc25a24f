"""The reader gives what the safetensors package gives, and refuses what that refuses."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgemoe_models.storage.tensor_file import (
    TensorFileError,
    parse_tensors,
    read_metadata,
    read_tensors,
    write_tensors,
)

TYPES = ("u1", "i1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "?")


@pytest.fixture
def content(rng):
    tensors = {
        name: rng.integers(0, 2, shape).astype(name)
        for name, shape in zip(TYPES, [(3, 5), (), (0,), (7,), (1, 2, 3)] * 3, strict=False)
    }
    return tensors, safetensors.numpy.save(tensors, {"note": "é", "empty": ""})


def packed(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_same_tensors(content, tmp_path):
    tensors, raw = content
    (tmp_path / "x").write_bytes(raw)
    for found, metadata in (read_tensors(tmp_path / "x"), parse_tensors(raw)):
        assert metadata == {"note": "é", "empty": ""} and found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
            np.testing.assert_array_equal(found[name], tensor)
    assert read_metadata(tmp_path / "x") == read_metadata(raw) == {"note": "é", "empty": ""}


def test_no_metadata():
    found, metadata = parse_tensors(packed({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"\5\6"))
    assert metadata == {} and found["a"].tolist() == [5, 6]


def test_bfloat16_is_read_as_float32():
    values = np.array([1.0, -2.5, np.inf], np.float32)
    header = {"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    found, _ = parse_tensors(packed(header, (values.view(np.uint32) >> 16).astype("<u2").tobytes()))
    assert found["a"].dtype == np.float32 and found["a"].tolist() == values.tolist()


def test_writes_whole(content, tmp_path):
    write_tensors(tmp_path / "new" / "x", content[0], {"note": "é"})
    found, metadata = read_tensors(tmp_path / "new" / "x")
    assert found.keys() == content[0].keys() and metadata == {"note": "é"}


def entry(dtype="U8", shape=(2,), offsets=(0, 2), **others):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **others}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "its header is cut off"),
        (b"12345", "its header is cut off"),
        (b"\xff" * 8 + b"{}", "its header is cut off"),
        (b"junk" * 10, "its header is cut off"),
        (packed(b"[]"), "the header must be an object"),
        (packed(b"[" * 100_000), "lie more than 32 deep"),
        (packed(b"\xff"), "not text in UTF-8"),
        (packed(b'{"a": 1, "a": 2}'), "the key 'a' comes twice"),
        (packed({"__metadata__": {"a": 1}}), "its metadata must be strings"),
        (packed({"__metadata__": []}), "metadata must be an object"),
        (packed({"a": 1}), "tensor 'a' must be an object, not 1"),
        (packed({"a": {"dtype": "U8"}}), "tensor 'a' lacks data_offsets, shape"),
        (packed({"a": entry(more=1)}, b"ab"), "tensor 'a' must have no 'more'"),
        (packed({"a": entry("F8_E4M3")}, b"ab"), "tensor a has the type 'F8_E4M3', which is not read"),
        (packed({"a": entry(shape=[-2])}, b"ab"), "shape of a must be an integer in 0..281474976710656, not -2"),
        (packed({"a": entry(shape=[True, 2])}, b"ab"), "shape of a must be an integer .*, not True"),
        (packed({"a": entry(shape=[2.0])}, b"ab"), "shape of a must be an integer .*, not 2.0"),
        (packed({"a": entry(shape=[1] * 17)}, b"ab"), "shape of a must have 0..16 items, not 17"),
        (packed({"a": entry(shape=[1 << 40, 1 << 40, 0], offsets=(0, 0))}), "has 0 bytes, and its shape"),
        (packed({"a": entry(shape=[1 << 30, 1 << 10])}, b"ab"), "has 2 bytes, and its shape .* needs 1099511627776"),
        (packed({"a": entry(offsets=(0, 1 << 40))}, b"ab"), "has 1099511627776 bytes, and its shape"),
        (packed({"a": entry(offsets=(2, 0))}, b"ab"), "has -2 bytes, and its shape"),
        (packed({"a": entry(offsets=(1, 3))}, b"abc"), "tensor a begins at byte 1, not at 0"),
        (packed({"a": entry(), "b": entry()}, b"ab"), "tensor b begins at byte 0, not at 2"),
        (packed({"a": entry(), "b": entry(offsets=(3, 5))}, b"abcde"), "tensor b begins at byte 3, not at 2"),
        (packed({"a": entry()}, b"a"), "it has 1 bytes of tensors, but its header tells of 2"),
        (packed({"a": entry()}, b"abc"), "it has 3 bytes of tensors, but its header tells of 2"),
        (packed({"a": entry([1])}, b"ab"), r"tensor a has the type \[1\], which is not read"),
    ],
)
def test_refuses(raw, message, tmp_path):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(TensorFileError, match=message) as caught:
        parse_tensors(raw)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    with pytest.raises(TensorFileError, match=message):
        read_tensors(tmp_path / "x")


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none")
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(TensorFileError, match="it is no regular file"):
            read_tensors(path)
    with pytest.raises(TensorFileError, match="null (byte|character)"):
        read_tensors("a\0b")


def test_a_file_with_holes_is_not_read(tmp_path):
    """It takes no room on the disk, and would take all memory."""
    size = 1 << 41
    header = packed({"a": entry(shape=[size], offsets=(0, size))})
    with (tmp_path / "x").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    with pytest.raises(TensorFileError, match="and at most 1,099,511,627,776 are read"):
        read_tensors(tmp_path / "x")
    with pytest.raises(TensorFileError, match="and at most 100 are read"):
        read_tensors(tmp_path / "x", largest=100)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@example(0, "cut", b"")
@given(st.integers(0, 10**6), st.sampled_from(["change", "insert", "cut"]), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_the_packages(place, how, junk):
    """Whatever is changed: one kind of error, or what the package reads too."""
    file = bytearray(safetensors.numpy.save({"a": np.arange(6, dtype="<i4"), "b": np.ones((2, 2), "u1")}, {"c": "d"}))
    place %= len(file)
    if how == "change":
        file[place : place + len(junk)] = junk[: len(file) - place]
    elif how == "insert":
        file[place:place] = junk
    else:
        del file[place:]
    try:
        found, _ = parse_tensors(bytes(file))
    except TensorFileError as error:
        assert "\n" not in str(error)
        return
    theirs = safetensors.numpy.load(bytes(file))
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_package_accepts_nothing_that_is_refused_in_its_own_files(rng):
    """The package's own files of any shapes are read; none is refused for an order or a gap of its making."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        tensors = {
            f"t{i}": draw.integers(0, 2, draw.integers(0, 4, draw.integers(0, 4))).astype(TYPES[draw.integers(12)])
            for i in range(draw.integers(0, 8))
        }
        found, _ = parse_tensors(safetensors.numpy.save(tensors))
        assert found.keys() == tensors.keys()
