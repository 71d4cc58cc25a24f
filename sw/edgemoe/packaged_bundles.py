"""The compiled models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from edgemoe.bundle import BundleError

__all__ = ["bundle_names", "find_bundle"]

_FOLDER = Path(__file__).parent / "bundles"
_SUFFIX = ".emoe"


def bundle_names(folder: Path = _FOLDER) -> tuple[str, ...]:
    """Names of the packaged bundles: model, precision and board, as ``m3vit-micro-w8a8-pynq-z2``. A board has none."""
    return tuple(path.stem for path in sorted(folder.glob(f"*{_SUFFIX}")))


def find_bundle(bundle: Path | str, folder: Path = _FOLDER) -> Path:
    """The file of a bundle.

    Args:
        bundle: a file's path, or the name of a packaged bundle; a file of that name comes first
        folder: of the packaged bundles

    Raises:
        BundleError: there is neither
    """
    path, names = Path(bundle), bundle_names(folder)
    if path.exists():
        return path
    if str(bundle) in names:
        return folder / f"{bundle}{_SUFFIX}"
    packaged = f", or name a packaged one: {', '.join(names)}" if names else ""
    raise BundleError(f"{bundle}: there is no such file; make a bundle with edgemoe compile{packaged}")
