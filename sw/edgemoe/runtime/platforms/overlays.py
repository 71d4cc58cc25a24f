"""Finds the overlay for a bundle: a bitstream, its ``.hwh``, and the manifest that ``make bitstream`` writes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe.bundle import Bundle, BundleError
from edgemoe.errors import DeviceError

__all__ = ["FOLDERS", "OverlayFiles", "find_overlay"]

#: Where overlays are looked for: ``make flash`` copies to ``edgemoe/<name>`` in the user's home.
FOLDERS = (Path("~/edgemoe"), Path("/home/xilinx/edgemoe"))


@dataclass(frozen=True)
class OverlayFiles:
    """``bitstream``: its path; ``clock_mhz``: what it was timed for, None where there is no manifest."""

    bitstream: Path
    clock_mhz: float | None


def find_overlay(bundle: Bundle, where: Path | str | None = None) -> OverlayFiles:
    """The overlay that runs a bundle.

    Args:
        where: a ``.bit`` file; or a folder, in which or just below which the newest manifest of the bundle's
            configuration counts; default: ``FOLDERS``

    Raises:
        DeviceError: there is none, or one of its files is missing, or not the one that was built
        BundleError: the manifest has another configuration than the bundle
    """
    given = None if where is None else Path(where).expanduser()
    if given is None or given.is_dir():
        given = _newest(bundle, [folder.expanduser() for folder in FOLDERS] if given is None else [given])
    for path in (given, given.with_suffix(".hwh")):
        if not path.is_file():
            raise DeviceError(
                f"{path}: there is no such file; an overlay is a .bit and a .hwh of the same name (make bitstream)"
            )
    manifest = given.with_suffix(".json")
    if not manifest.is_file():
        return OverlayFiles(given.resolve(), None)
    return OverlayFiles(given.resolve(), _check(bundle, manifest, _read(manifest)))


def _newest(bundle: Bundle, folders: list[Path]) -> Path:
    found = [
        path
        for folder in folders
        for pattern in ("*.json", "*/*.json")
        for path in folder.glob(pattern)
        if _read(path).get("config_hash") == bundle.config.content_hash
    ]
    if not found:
        raise DeviceError(
            f"no overlay of configuration {bundle.config.name} (hash {bundle.config.hash32:#010x}) is in "
            f'{" or ".join(map(str, folders))}; name one: bitstream="file.bit"'
        )
    return max(found, key=lambda path: path.stat().st_mtime).with_suffix(".bit")


def _read(manifest: Path) -> dict[str, Any]:
    """A manifest; empty if the file is something else."""
    try:
        values = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) and {"config", "files", "clock_mhz"} <= values.keys() else {}


def _check(bundle: Bundle, path: Path, manifest: dict[str, Any]) -> float | None:
    """Files as they were built, for this bundle; the clock.

    PYNQ keeps what it read of a ``.hwh`` under the bitstream's hash, so the pair must be the one that was built.
    """
    if not manifest:
        return None
    if manifest["config_hash"] != bundle.config.content_hash:
        raise BundleError(
            f"{path.with_suffix('.bit')} has config {manifest['config'].get('name')} (hash "
            f"0x{manifest['config_hash'][:8]}), the bundle is for {bundle.config.name} (hash "
            f"{bundle.config.hash32:#010x}); load the bundle's overlay, or compile the model for this one"
        )
    for name, digest in manifest["files"].items():
        file = path.parent / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise DeviceError(
                f"{file} is missing or is not the file that {path.name} was written for; copy the overlay again"
            )
    return float(manifest["clock_mhz"])
