"""Finds the overlay for a bundle: a bitstream, its ``.hwh``, and the manifest that ``make bitstream`` writes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgemoe.bundle import Bundle, BundleError
from edgemoe.errors import DeviceError
from edgemoe.manifest import Manifest, ManifestError, read_manifest

__all__ = ["OverlayFiles", "find_overlay", "manifests", "overlay_folders"]

_FOLDER = "edgemoe"  # in a home: ``make flash`` copies to edgemoe/<name> there
_FIRST_USER = 1000  # number of the first that a person has; root, whose home a notebook has, is 0


def overlay_folders() -> list[Path]:
    """Where overlays are looked for: ``edgemoe`` in the own home, and in every user's where there is one.

    An overlay is copied as ``xilinx`` or ``ubuntu`` and loaded as root, whose home is another.
    """
    own = Path(os.path.expanduser("~")) / _FOLDER
    return [own, *(folder for folder in _others() if folder != own)]


def _others() -> list[Path]:
    try:
        import pwd
    except ImportError:  # Windows, which is no board
        return []
    homes = {entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid == 0 or entry.pw_uid >= _FIRST_USER}
    return [folder for folder in sorted(Path(home) / _FOLDER for home in homes if home) if _is_folder(folder)]


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError):  # it is in a home that is closed to us
        return path.is_dir()
    return False


@dataclass(frozen=True)
class OverlayFiles:
    """``bitstream``: its path; ``clock_mhz``: what it was timed for, None where there is no manifest."""

    bitstream: Path
    clock_mhz: float | None


def find_overlay(bundle: Bundle, where: Path | str | None = None) -> OverlayFiles:
    """The overlay that runs a bundle.

    Args:
        where: a ``.bit`` file; or a folder, in which or just below which the newest manifest of the bundle's
            configuration counts; default: ``overlay_folders``

    Raises:
        DeviceError: there is none, or one of its files is missing, or not the one that was built
        BundleError: the manifest has another configuration than the bundle
    """
    given = None if where is None else Path(where).expanduser()
    if given is None or given.is_dir():
        given = _newest(bundle, overlay_folders() if given is None else [given])
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


def manifests(folders: list[Path]) -> list[Manifest]:
    """The manifests of overlays in folders and just below them; whatever else is there does not count."""
    found = []
    for folder in folders:
        for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
            with contextlib.suppress(ManifestError, OSError):
                found.append(read_manifest(path))
    return found


def _newest(bundle: Bundle, folders: list[Path]) -> Path:
    found = [manifest.path for manifest in manifests(folders) if manifest.config_hash == bundle.config.content_hash]
    if not found:
        raise DeviceError(
            f"no overlay of configuration {bundle.config.name} (hash {bundle.config.hash32:#010x}) is in "
            f'{" or ".join(map(str, folders))}; name one: bitstream="file.bit"'
        )
    return max(found, key=lambda path: path.stat().st_mtime).with_suffix(".bit")


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
