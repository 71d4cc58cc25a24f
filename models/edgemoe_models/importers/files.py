"""Reading foreign checkpoints without running code that is in them: safetensors, and torch files of tensors only.

And writing what was imported.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from PIL import Image

from edgemoe_models.importers.common import Imported, ImportRefused
from edgemoe_models.storage.atomic import write_bytes

Tensors = dict[str, npt.NDArray[Any]]
#: Where training scripts keep the state dict: DeiT; M3ViT and many others; DeepSpeed.
_NESTINGS = ("model", "state_dict", "module")


def read_tensors(path: Path) -> Tensors:
    """All tensors of one ``.safetensors`` or torch file, in its order.

    Raises:
        ImportRefused: the file cannot be read, or holds more than tensors; PyTorch is needed and not installed.
    """
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                return {name: file.get_tensor(name) for name in file.keys()}
        except (safetensors.SafetensorError, OSError, TypeError) as error:
            raise ImportRefused(f"not a safetensors file that NumPy can hold ({error})") from None
    return _numpy(_state_dict(_load(path)))


def read_ranks(folder: Path) -> Tensors:
    """A folder of ``0.pth, 1.pth, ...``, one a process: all of 0's tensors, the experts of all joined in order.

    Raises:
        ImportRefused: a file is missing, or a rank's experts do not fit to the others'.
    """
    ranks = sorted(int(path.stem) for path in folder.glob("*.pth") if path.stem.isdigit())
    if ranks != list(range(len(ranks))) or not ranks:
        missing = sorted(set(range(max(ranks, default=0) + 1)) - set(ranks))
        raise ImportRefused(f"missing: {', '.join(f'{rank}.pth' for rank in missing)}")
    parts = [read_tensors(folder / f"{rank}.pth") for rank in ranks]
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
    return tensors


def _load(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise ImportRefused(
            "reading a torch file needs PyTorch (pip install torch); a .safetensors file needs nothing more"
        ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ImportRefused(
            f"{path.name} holds other Python objects than tensors, which are not loaded because they could run code. "
            "If you trust the file, save its state dict alone: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW)"
        ) from None
    except Exception as error:  # bytes that are no torch file end in any of Python's errors
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise ImportRefused(f"{path.name} is no readable torch file ({reason})") from None


def _state_dict(content: Any) -> Mapping[str, Any]:
    for key in _NESTINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ImportRefused(f"the file must hold a state dict (names and tensors), not {type(content).__name__}")
    return content


def _numpy(state: Mapping[str, Any]) -> Tensors:
    tensors = {}
    for name, value in state.items():
        if not (isinstance(name, str) and hasattr(value, "detach")):
            raise ImportRefused(f"{name!r} is no tensor but {type(value).__name__}: save the state dict alone")
        is_float = value.is_floating_point()
        tensors[name] = (value.detach().float() if is_float else value.detach()).cpu().numpy()
    return tensors


def save_imported(imported: Imported, source: Path, out: Path) -> list[Path]:
    """Write the checkpoint, and the image beside it if there is one; return the files."""
    origin = {"source": source.name, "notes": imported.notes, "unused": imported.unused}
    metadata = {"config": imported.config.to_json(), "imported": json.dumps(origin)}
    write_bytes(out, safetensors.numpy.save(imported.state, metadata))
    if imported.image is None:
        return [out]
    picture, content = out.with_suffix(".png"), io.BytesIO()
    Image.fromarray(imported.image).save(content, "PNG")
    write_bytes(picture, content.getvalue())
    return [out, picture]
