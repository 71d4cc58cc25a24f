"""Torch files of others: arrays of numbers in memory are read, all else is refused in one line; nothing runs."""

import io
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: torch files are not read")

from edgemoe_models.importers import ImportOptions, import_checkpoint  # noqa: E402
from edgemoe_models.importers.files import read_ranks, read_tensors  # noqa: E402
from edgemoe_models.importers.options import ImportRefused  # noqa: E402
from edgemoe_models.importers.positions import image_size  # noqa: E402

NUMBERS = torch.arange(6.0)
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, for what the tests make


def saved(folder, content, zipped=True):
    torch.save(content, folder / "x.pth", _use_new_zipfile_serialization=zipped)
    return folder / "x.pth"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nest", [None, "model", "state_dict", "module"])
def test_arrays_are_read(tmp_path, zipped, nest):
    state = {
        "float": torch.nn.Parameter(NUMBERS),
        "half": NUMBERS.half(),
        "bfloat": NUMBERS.bfloat16(),
        "integer": NUMBERS.long(),
        "flag": NUMBERS > 2,
        "strided": NUMBERS.reshape(2, 3).T,
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
    }
    found = read_tensors(saved(tmp_path, {nest: state} if nest else state, zipped))
    assert list(found) == list(state)
    for name, value in state.items():
        wanted = value.detach().float().numpy() if value.is_floating_point() else value.numpy()
        np.testing.assert_array_equal(found[name], wanted)
        assert found[name].dtype == wanted.dtype


REFUSED = {
    "coo": (lambda: {"a": torch.eye(3).to_sparse()}, r"a is a sparse tensor \(sparse_coo\): save a.to_dense\(\)"),
    "csr": (lambda: {"a": torch.eye(3).to_sparse_csr()}, r"a is a sparse tensor \(sparse_csr\)"),
    "meta": (lambda: {"a": torch.empty(3, device="meta")}, "a is on the device 'meta', so it has a shape but"),
    "quantized": (lambda: {"a": torch.quantize_per_tensor(NUMBERS, 0.1, 0, torch.qint8)}, "a is quantized already"),
    "complex": (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, r"a is complex \(complex64\)"),
    "expanded": (lambda: {"a": torch.ones(1).expand(10**13)}, "needs 40,000,000,000,000 bytes, but its storage has 4"),
    "many views": (lambda: dict.fromkeys(map(str, range(50)), torch.ones(9999)), "4 and those before it claim 199,"),
    "number as name": (lambda: {1: NUMBERS}, "a name must be a line of text, not 1: save the state dict alone"),
    "bytes as name": (lambda: {b"a": NUMBERS}, "a name must be a line of text, not b'a'"),
    "two lines": (lambda: {"a\nb": NUMBERS}, r"a name must be a line of text, not 'a\\nb'"),
    "long name": (lambda: {"a" * 301: NUMBERS}, "a name must be a line of text, not 'aaaa"),
    "nothing": (lambda: {"a": None}, "'a' is no tensor but NoneType: save the state dict alone"),
    "nested too deep": (
        lambda: {"model": {"module": {"a": {"b": NUMBERS}}}},
        "under 'model.module.a': say so with --key",
    ),
    "empty": (lambda: {}, "the file must hold a state dict"),
    "list": (lambda: [NUMBERS], r"the file must hold a state dict \(names and tensors\), not list"),
    "tensor": (lambda: NUMBERS, "not Tensor"),
    "object": (lambda: {"a": io.BytesIO}, "holds other Python objects than tensors"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", REFUSED)
def test_refusals(tmp_path, kind, zipped):
    make, message = REFUSED[kind]
    path = saved(tmp_path, make(), zipped)
    with pytest.raises(ImportRefused, match=message) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_a_nested_tensor(tmp_path):
    path = saved(tmp_path, {"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])})
    with pytest.raises(ImportRefused, match="a is a nested tensor"):
        read_tensors(path)


def edited(path, edit, compression=zipfile.ZIP_STORED):
    """The archive with each part's bytes changed, or left out where that gives None."""
    out = path.with_name("edited.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            content = edit(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return out


@pytest.mark.parametrize(
    ("edit", "compression", "message"),
    [
        (lambda name, part: part[:5] if name.endswith("data/0") else part, zipfile.ZIP_STORED, "no readable torch"),
        (lambda name, part: None if name.endswith("data/0") else part, zipfile.ZIP_STORED, "no readable torch"),
        (lambda name, part: part.replace(b"K\xc8", b"J\0\0\0\x7f"), zipfile.ZIP_STORED, "no readable torch"),
        (lambda name, part: part, zipfile.ZIP_DEFLATED, "is a compressed archive, and torch writes none"),
    ],
)
def test_archives_that_claim_more_than_they_have(tmp_path, edit, compression, message):
    path = saved(tmp_path, {"a": torch.arange(200, dtype=torch.uint8)})
    with pytest.raises(ImportRefused, match=message):
        read_tensors(edited(path, edit, compression))


def test_what_is_no_file(tmp_path):
    with pytest.raises(ImportRefused, match="null is no file"):
        read_tensors(type(tmp_path)("/dev/null"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=3), st.booleans())
def test_a_damaged_file_is_refused_or_arrays(tmp_path, place, junk, zipped):
    path = saved(tmp_path, {"a": NUMBERS, "b": NUMBERS.long()}, zipped)
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place : place + len(junk)] = junk
    path.write_bytes(content)
    try:
        assert all(isinstance(value, np.ndarray) for value in read_tensors(path).values())
    except ImportRefused as error:
        assert "\n" not in str(error)


def test_ranks_are_numbers_of_processes(tmp_path):
    for name in ("0", "1", "3"):
        saved(tmp_path, {"x.experts.w": torch.ones(2, 3)}).rename(tmp_path / f"{name}.pth")
    with pytest.raises(ImportRefused, match="missing: 2.pth"):
        read_ranks(tmp_path)
    (tmp_path / "3.pth").rename(tmp_path / "2.pth")
    for name in ("1000000000000000000", "²"):  # no rank of anybody's
        shutil.copy(tmp_path / "0.pth", tmp_path / f"{name}.pth")
    assert read_ranks(tmp_path)[0]["x.experts.w"].shape == (6, 3)


NUMBERED = {"patch_embed.proj.weight": torch.ones(8, 3, 4, 4), "cls_token": torch.ones(1, 1, 8)}
NUMBERED |= {"pos_embed": torch.ones(1, 5, 8), "head.weight": torch.ones(2, 8)}


@pytest.mark.parametrize("extra", ["", ".experts.htoh4"])
def test_a_block_of_any_number_starts_no_loop(tmp_path, extra):
    """timm's and M3ViT's names."""
    name = f"blocks.999999999.mlp{extra}.weight"
    path = saved(tmp_path, NUMBERED | {name: NUMBERS})
    options = ImportOptions(heads=2, top_k=1, seed_heads=1, tasks="depth") if extra else ImportOptions(heads=2)
    with pytest.raises(ImportRefused, match="has a block 999999999, but a model has at most 256 blocks"):
        import_checkpoint(path, options)


def test_a_file_of_any_number_starts_no_loop(tmp_path):
    """Edge-MoE's folders."""
    for name, size in (
        ("patch_embed_bias", 8),
        ("patch_embed_weight", 3 * 16 * 8),
        ("pos_embed", 5 * 8),
        ("l99999999_x", 1),
    ):
        (tmp_path / f"{name}.float32.bin").write_bytes(bytes(4 * size))
    with pytest.raises(ImportRefused, match="has a block 99999999, but a model has at most 256 blocks"):
        import_checkpoint(tmp_path, ImportOptions())


def test_a_picture_of_any_size_takes_no_memory():
    for sides in ((10**9, 8), (8, 0)):
        with pytest.raises(ImportRefused, match="--image-(height|width) must be 1 to 8192, not (1000000000|0)"):
            image_size(ImportOptions(image_height=sides[0], image_width=sides[1]), 4, 4)
