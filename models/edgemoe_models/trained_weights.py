"""Where the trained float weights of the named models are: in the package, or in a checkout only."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CHECKOUT_ONLY", "WEIGHTS_HOME", "is_checkout_only", "weights_path"]

#: Trained models whose files (float weights and integer graph) are too large for wheel and source distribution.
CHECKOUT_ONLY = ("m3vit-tiny-camvid",)
#: Where their files lie in the repository.
WEIGHTS_HOME = "models/edgemoe_models/weights"


def is_checkout_only(name: str) -> bool:
    """Whether a model, or a quantized form of it (``m3vit-tiny-camvid-w8a8``), is one of ``CHECKOUT_ONLY``."""
    return any(name == model or name.startswith(f"{model}-") for model in CHECKOUT_ONLY)


def weights_path(name: str) -> Path:
    """Where a model's trained weights are, if there are any: one file, or the first of several parts."""
    folder = Path(__file__).parent / "weights"
    whole = folder / f"{name}.safetensors"
    return whole if whole.is_file() else next(iter(sorted(folder.glob(f"{name}-00001-of-*.safetensors"))), whole)
