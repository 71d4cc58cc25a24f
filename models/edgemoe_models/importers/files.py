"""Reading foreign checkpoints without running code that is in them: safetensors, and torch files of tensors only.

And writing what was imported.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgemoe_models.graph.file import write_graph
from edgemoe_models.importers.nesting import advice, kept_arguments, select_state
from edgemoe_models.importers.options import Imported, ImportRefused
from edgemoe_models.storage import tensor_file
from edgemoe_models.storage.atomic import write_bytes
from edgemoe_models.storage.checks import shown
from edgemoe_models.storage.file_kind import describe, is_importable

Tensors = dict[str, npt.NDArray[Any]]
_RANK = re.compile(r"\d{1,4}", re.ASCII)
_MOST_USES = 4  # times that a byte of the file may be part of a tensor: layers that share weights
_LONGEST_NAME = 300


def read_tensors(path: Path, key: str | None = None) -> Tensors:
    """All tensors of one ``.safetensors`` or torch file, in its order; see :func:`read_checkpoint`."""
    return read_checkpoint(path, key)[0]


def read_checkpoint(path: Path, key: str | None = None) -> tuple[Tensors, tuple[str, ...]]:
    """All tensors of one ``.safetensors`` or torch file, in its order, and notes.

    Args:
        path: of the file; its content says what it is
        key: under which a torch file has the state dict

    Raises:
        ImportRefused: the file cannot be read, or holds more than tensors; PyTorch is needed and not installed.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ImportRefused(f"{path.name} is no file")
    if not is_importable(path):
        raise ImportRefused(f"it {describe(path)}")
    if _is_tensor_file(path):
        if key is not None:
            raise ImportRefused("a safetensors file has no keys: leave --key out; --prefix chooses by names")
        try:
            return tensor_file.read_tensors(path)[0], ()
        except (tensor_file.TensorFileError, OSError) as error:
            raise ImportRefused(f"not a safetensors file that NumPy can hold ({error})") from None
    state, note = select_state(_load(path), key)
    size = path.stat().st_size
    tensors, total = {}, 0
    for name, value in state.items():
        _check_tensor(name, value)
        total += value.numel() * value.element_size()
        if total > _MOST_USES * size:
            raise ImportRefused(f"{name} and those before it claim {total:,} bytes, but {path.name} has {size:,}")
        tensors[name] = _numpy(name, value)
    return tensors, () if note is None else (note,)


def read_arguments(path: Path) -> dict[str, int | float | str]:
    """What a torch file says of how its network was made; nothing of any other file."""
    return {} if _is_tensor_file(path) else kept_arguments(_load(path))


def _is_tensor_file(path: Path) -> bool:
    """By its content, or where that is damaged, by its name."""
    try:
        tensor_file.read_metadata(path)
    except (tensor_file.TensorFileError, OSError):
        return path.suffix == ".safetensors" and describe(path) is None
    return True


def read_ranks(folder: Path, key: str | None = None) -> tuple[Tensors, tuple[str, ...]]:
    """A folder of ``0.pth, 1.pth, ...``, one a process: all of 0's tensors, the experts of all joined in order.

    Args:
        folder: of the files
        key: under which each has its state dict

    Returns:
        The tensors, and notes on the first file

    Raises:
        ImportRefused: a file is missing, or a rank's experts do not fit to the others'.
    """
    ranks = sorted(int(path.stem) for path in folder.glob("*.pth") if _RANK.fullmatch(path.stem))
    if missing := sorted(set(range(max(ranks, default=0) + 1)) - set(ranks)):
        raise ImportRefused(f"missing: {', '.join(f'{rank}.pth' for rank in missing)}")
    read = [read_checkpoint(folder / f"{rank}.pth", key) for rank in ranks]
    parts = [tensors for tensors, _ in read]
    tensors = dict(parts[0])
    for name, first in parts[0].items():
        if ".experts." in name:
            try:
                tensors[name] = np.concatenate([first, *(part[name] for part in parts[1:])])
            except KeyError:
                lacking = [f"{rank}.pth" for rank in ranks if name not in parts[rank]]
                raise ImportRefused(f"{', '.join(lacking)} lack {name}") from None
            except ValueError as error:
                raise ImportRefused(f"the ranks' {name} do not fit together ({error})") from None
    return tensors, read[0][1]


def _load(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise ImportRefused(
            "reading a torch file needs PyTorch (pip install torch); a .safetensors file needs nothing more"
        ) from None
    _check_archive(path)
    try:
        with path.open("rb") as file:  # given a path, torch would go by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ImportRefused(
            f"{path.name} holds other Python objects than tensors, which are not loaded because they could run code. "
            f"If you trust the file, save its state dict alone: {advice(path)}"
        ) from None
    except Exception as error:  # bytes that are no torch file end in any of Python's errors
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise ImportRefused(f"{path.name} is no readable torch file ({reason})") from None


def _check_archive(path: Path) -> None:
    """A torch file is a zip archive without compression; a compressed one could hold any amount of memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # of the form before zip, or damaged
        return
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise ImportRefused(f"{path.name} is a compressed archive, and torch writes none: save it with torch.save")
    if (total := sum(entry.file_size for entry in entries)) > path.stat().st_size:
        raise ImportRefused(f"{path.name} is damaged: its parts have {total:,} bytes, more than the file")


def _check_tensor(name: Any, value: Any) -> None:
    """Refuse what is not simply an array of numbers in memory."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ImportRefused(f"a name must be a line of text, not {shown(name)}: save the state dict alone")
    if not hasattr(value, "detach"):
        raise ImportRefused(f"{name!r} is no tensor but {type(value).__name__}: save the state dict alone")
    layout, kind = str(value.layout).removeprefix("torch."), str(value.dtype).removeprefix("torch.")
    if value.is_nested:
        raise ImportRefused(f"{name} is a nested tensor: save the padded one")
    if layout != "strided":
        raise ImportRefused(f"{name} is a sparse tensor ({layout}): save {name}.to_dense()")
    if value.device.type == "meta":
        raise ImportRefused(f"{name} is on the device 'meta', so it has a shape but no values: save the loaded model")
    if value.is_quantized:
        raise ImportRefused(f"{name} is quantized already ({kind}): save the float model, which is quantized here")
    if value.is_complex():
        raise ImportRefused(f"{name} is complex ({kind}), and no tensor of a vision transformer is")
    own, needed = value.untyped_storage().nbytes(), value.numel() * value.element_size()
    if needed > own:
        raise ImportRefused(f"{name} {list(value.shape)} needs {needed:,} bytes, but its storage has {own:,}")


def _numpy(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        plain = value.detach().float() if value.is_floating_point() else value.detach()
        array: npt.NDArray[Any] = plain.cpu().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ImportRefused(f"{name} ({value.dtype}) cannot become an array ({reason})") from None
    return array


def save_imported(imported: Imported, source: Path, out: Path) -> list[Path]:
    """Write the checkpoint, and the image beside it if there is one; return the files."""
    if imported.graph is not None:
        write_graph(imported.graph, out)
        return [out]
    origin = {"source": source.name, "notes": imported.notes, "unused": imported.unused}
    metadata = {"config": imported.config.to_json(), "imported": json.dumps(origin)}
    tensor_file.write_tensors(out, imported.state, metadata)
    if imported.image is None:
        return [out]
    picture, content = out.with_suffix(".png"), io.BytesIO()
    Image.fromarray(imported.image).save(content, "PNG")
    write_bytes(picture, content.getvalue())
    return [out, picture]
