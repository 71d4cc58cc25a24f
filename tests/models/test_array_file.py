"""Files of one array: what numpy.save writes is read, everything else is one line that names the file."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemoe_models.storage.array_file import ArrayFileError, read_array, write_array

TYPES = ("u1", "i1", "<u2", ">i2", "<i4", "<i8", "<f2", "<f4", ">f8", "?")


def header(text, data=b"", version=1):
    raw = text.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(raw).to_bytes(2 if version == 1 else 4, "little") + raw + data


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_numpy_saves(tmp_path, rng, dtype, order, mapped):
    for shape in [(), (0,), (3,), (2, 3, 4), (0, 5)]:
        array = np.asarray(rng.integers(0, 2, shape).astype(dtype), order=order)
        np.save(tmp_path / "x.npy", array)
        found = read_array(tmp_path / "x.npy", mapped=mapped)
        assert found.dtype == array.dtype and found.shape == shape
        np.testing.assert_array_equal(found, array)


def test_writes_what_numpy_loads(tmp_path, rng):
    array = rng.integers(0, 9, (2, 3))
    write_array(tmp_path / "new" / "x.npy", array[:, ::2])
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "x.npy"), array[:, ::2])
    with pytest.raises(ValueError, match="Object arrays"):
        write_array(tmp_path / "new" / "y.npy", np.array([{}]))
    assert not (tmp_path / "new" / "y.npy").exists()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_and_spellings(tmp_path, version):
    (tmp_path / "x").write_bytes(header("{'shape': (2,), \"fortran_order\": False ,'descr': '|u1'}\n", b"ab", version))
    assert read_array(tmp_path / "x").tolist() == [97, 98]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin as a .npy file"),
        (b"\x93NUMPY", "does not begin as a .npy file"),
        (b"PK\x03\x04" + bytes(40), "does not begin as a .npy file"),
        (header("{}", version=9), "version 9 of the format is not known"),
        (header("{'a': "), "its header is cut off, or not of"),  # tokenize.TokenError in NumPy
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (1 x), }"), "not of an array"),  # SyntaxError
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999, 128, 3), }"), "larger"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 3), }"), "needs 3000000000000 b"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000000, 0), }"), "larger than any"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (1.5, 2), }"), "not of an array"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 2), }"), "not of an array"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"x"), "only numbers and booleans"),
        (header("{'descr': '<U9', 'fortran_order': False, 'shape': (1,), }"), "only numbers and booleans"),
        (header("{'descr': '<i3', 'fortran_order': False, 'shape': (1,), }"), "which NumPy does not have"),
        (header("{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (1,), }"), "not of an array"),
        (header("{'descr': True, 'fortran_order': False, 'shape': (1,), }"), "only numbers and booleans"),
        (header("{'descr': '|u1', 'fortran_order': (1,), 'shape': (1,), }"), "only numbers and booleans"),
        (header("{'descr': '|u1', 'descr': '|u1', 'shape': (1,), }", b"x"), "not of an array"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 5000 + ", }"), "not of an array"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 200 + "), }", b"x"), "larger than any"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", b"x"), "needs 2 bytes, and 1 follow"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", b"xyz"), "needs 2 bytes, and 3 follow"),
        (header(" " * 20_000), "its header has 20000 bytes, and at most 10000 are read"),
        (header("{'descr'")[:14], "cut off"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_refuses(tmp_path, content, message, mapped):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ArrayFileError, match=rf"x\.npy: not a readable array \(.*{message}") as caught:
        read_array(tmp_path / "x.npy", mapped)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "none")
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(ArrayFileError, match="it is no regular file"):
            read_array(path)
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(ArrayFileError, match="does not begin as"):
        read_array(tmp_path / "x.npz")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_an_array(tmp_path, data):
    """Whatever byte is changed, inserted or cut: an array of the file's size, or one kind of error."""
    file = io.BytesIO()
    np.save(file, np.arange(6, dtype="<i4").reshape(2, 3))
    content = bytearray(file.getvalue())
    place = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["change", "insert", "cut"])):
        case "change":
            content[place] = data.draw(st.integers(0, 255))
        case "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        case "cut":
            del content[place:]
    (tmp_path / "x").write_bytes(content)
    try:
        assert read_array(tmp_path / "x").nbytes <= len(content)
    except ArrayFileError as error:
        assert "\n" not in str(error)
