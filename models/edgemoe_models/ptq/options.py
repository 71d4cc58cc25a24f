"""What post-training quantization may choose."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
LIMIT = 127
TINY = 1e-12
#: Percentile of the activations' magnitudes for "percentile" ranges (one of those of Wu et al. 2020, arXiv 2004.09602).
_PERCENTILE = 99.99
RANGES = ("min-max", "percentile", "mse")


class QuantizeError(ValueError):
    """A model that cannot be quantized; the message names the tensor or layer."""


@dataclasses.dataclass(frozen=True)
class QuantizeOptions:
    """What post-training quantization does; the default is the best measured.

    Attributes:
        expert_bits: bits of the experts' weights, 8 or 4
        power_of_two: whether every scale is a power of two, and so every ratio that requantize multiplies by
        ranges: "min-max", "percentile" (of activations; weights min-max), or "mse": the range of least squared error in
            what the values are for (a linear layer's outputs, softmax's probabilities), weights weighed by their inputs
        equalize: whether channels' ranges and means move between activations and weights (Xiao et al. 2023,
            SmoothQuant)
        whole_channels: whether equalization moves all of a channel's range, as RepQ-ViT does (Li et al. 2023), instead
            of the share that loses least
        correct_bias: whether biases make up for the mean of the rounding errors
        refit: whether the heads' last weights are fitted to what the integer layers before them really give
        per_channel: whether weights have a scale for each output channel; else one a layer
        compensate: whether weights are rounded together, each making up for the errors of those before (GPTQ); else
            each to the nearest
        int4_share: share of the weights of attention and MLPs that get 4 bits, 0 to 1: layers that matter least
            (``edgemoe_models.ptq.relevance``); experts have ``expert_bits``

    Raises:
        QuantizeError: a value that is none of these.
    """

    expert_bits: int = 8
    power_of_two: bool = False
    ranges: Literal["min-max", "percentile", "mse"] = "mse"
    equalize: bool = True
    correct_bias: bool = True
    refit: bool = True
    per_channel: bool = True
    compensate: bool = True
    int4_share: float = 0.0
    whole_channels: bool = False

    def __post_init__(self) -> None:
        if self.expert_bits not in (4, 8):
            raise QuantizeError(f"expert_bits must be 4 or 8, not {self.expert_bits!r}")
        if not 0 <= self.int4_share <= 1:
            raise QuantizeError(f"int4_share must be in 0..1, not {self.int4_share!r}")
        if self.ranges not in RANGES:
            raise QuantizeError(f"ranges must be one of {', '.join(RANGES)}, not {self.ranges!r}")

    def rounded(self, scale: Floats | float) -> Floats:
        """Scales as they may be: the next power of two where all must be powers of two."""
        scale = np.asarray(scale, np.float64)
        if not self.power_of_two:
            return scale
        fraction, exponent = np.frexp(scale)  # fraction in [0.5, 1)
        result: Floats = np.ldexp(1.0, exponent - (fraction == 0.5))
        return result

    def factors(self, a: Floats) -> Floats:
        """Equalization's factors as they may be: the nearest powers of two where all must be."""
        if not self.power_of_two:
            return a
        fraction, exponent = np.frexp(a)  # fraction in [0.5, 1)
        result: Floats = np.ldexp(1.0, exponent - (fraction < math.sqrt(0.5))).astype(a.dtype)
        return result

    def scales(self, x: Floats, peak: float, clips: tuple[float, ...]) -> list[float]:
        """The int8 scales to try for values x whose largest magnitude is ``peak``."""
        if self.ranges == "percentile":
            peak = _percentile(np.abs(x).reshape(-1), _PERCENTILE)
        tried = [max(peak * clip, TINY) / LIMIT for clip in (clips if self.ranges == "mse" else (1.0,))]
        return [float(self.rounded(scale)) for scale in tried]


DEFAULT = QuantizeOptions()


def _percentile(x: Floats, percent: float) -> float:
    """Between the two values around it in the order of size, linearly."""
    position = (len(x) - 1) * (percent / 100)
    below = int(position)
    low, high = np.partition(x, (below, min(below + 1, len(x) - 1)))[[below, min(below + 1, len(x) - 1)]]
    return float(low + (high - low) * (position - below))
