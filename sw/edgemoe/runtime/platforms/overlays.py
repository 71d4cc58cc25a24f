"""Finds the overlay for a bundle: a bitstream, its ``.hwh``, and the manifest that ``make bitstream`` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemoe.bundle import Bundle, BundleError
from edgemoe.errors import DeviceError
from edgemoe.manifest import Manifest, ManifestError, read_manifest

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
    try:
        return OverlayFiles(given.resolve(), _check(bundle, read_manifest(manifest)))
    except ManifestError as error:
        raise DeviceError(f"{error}; copy the overlay again, or remove that file") from None


def _newest(bundle: Bundle, folders: list[Path]) -> Path:
    found = [
        path
        for folder in folders
        for pattern in ("*.json", "*/*.json")
        for path in folder.glob(pattern)
        if _config_hash(path) == bundle.config.content_hash
    ]
    if not found:
        raise DeviceError(
            f"no overlay of configuration {bundle.config.name} (hash {bundle.config.hash32:#010x}) is in "
            f'{" or ".join(map(str, folders))}; name one: bitstream="file.bit"'
        )
    return max(found, key=lambda path: path.stat().st_mtime).with_suffix(".bit")


def _config_hash(path: Path) -> str | None:
    """Of a manifest's configuration; None if the file is something else."""
    try:
        return read_manifest(path).config_hash
    except (ManifestError, OSError):
        return None


def _check(bundle: Bundle, manifest: Manifest) -> float:
    """Files as they were built, for this bundle; the clock.

    PYNQ keeps what it read of a ``.hwh`` under the bitstream's hash, so the pair must be the one that was built.
    """
    if manifest.config_hash != bundle.config.content_hash:
        raise BundleError(
            f"{manifest.path.with_suffix('.bit')} has config {manifest.config_name} (hash "
            f"0x{manifest.config_hash[:8]}), the bundle is for {bundle.config.name} (hash "
            f"{bundle.config.hash32:#010x}); load the bundle's overlay, or compile the model for this one"
        )
    if (file := manifest.changed_file()) is not None:
        raise DeviceError(
            f"{file} is missing or is not the file that {manifest.path.name} was written for; copy the overlay again"
        )
    return manifest.clock_mhz
