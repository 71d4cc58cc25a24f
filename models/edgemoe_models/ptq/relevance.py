"""Which layers can do with weights of 4 bits: those whose rounding changes the network's last tokens least. NumPy only.

A choice of bits a layer by the layer's relevance for the result, as LRP-QViT makes it (Ranjan and Savakis 2024, arXiv
2401.11243). Relevance is not propagated back here, but measured: one layer after the other is rounded in the float
model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgemoe_models import float_reference
from edgemoe_models.config import ModelConfig
from edgemoe_models.exact.sums import Doubles, total
from edgemoe_models.float_reference import Floats
from edgemoe_models.ptq.layers import rounded_weights
from edgemoe_models.ptq.options import TINY, QuantizeOptions

__all__ = ["LAYERS", "int4_errors", "least_relevant"]

#: Layers that may have 4 bits, by their names in the graph, and where the state dict has them.
LAYERS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
#: Calibration images that relevance is measured on.
_IMAGES = 2


def int4_errors(
    state: dict[str, Floats], config: ModelConfig, images: npt.NDArray[np.uint8], options: QuantizeOptions
) -> Iterator[tuple[str, float]]:
    """Of each layer of attention and MLPs the relative square error of the last tokens, of the first task, when only
    this layer's weights have 4 bits."""
    starts = [float_reference.embed(state, config, images[:_IMAGES])]
    for i in range(config.depth):
        starts.append(_block(state, config, starts[-1], i))
    for i in range(config.depth):
        for layer, place in LAYERS.items():
            name = f"blocks.{i}.{place}.weight"
            if name not in state:
                continue
            x = starts[i]
            changed = state | {name: rounded_weights(state[name], 4, options)}
            for block in range(i, config.depth):
                x = _block(changed, config, x, block)
            yield f"blocks.{i}.{layer}", _square(x - starts[-1]) / max(_square(starts[-1]), TINY)


def least_relevant(
    state: dict[str, Floats], config: ModelConfig, images: npt.NDArray[np.uint8], options: QuantizeOptions
) -> frozenset[str]:
    """Layers whose weights are at most ``options.int4_share`` of those of attention and MLPs, with the least error a
    weight."""
    if not options.int4_share:
        return frozenset()
    errors = dict(int4_errors(state, config, images, options))
    sizes = {name: state[_state_name(name)].size for name in errors}
    room = options.int4_share * sum(sizes.values())
    chosen = []
    for name in sorted(errors, key=lambda name: (errors[name] / sizes[name], name)):
        if sizes[name] <= room:
            room -= sizes[name]
            chosen.append(name)
    return frozenset(chosen)


def _state_name(name: str) -> str:
    block, _, layer = name.rpartition(".")
    return f"{block}.{LAYERS[layer]}.weight"


def _block(state: dict[str, Floats], config: ModelConfig, x: Doubles, i: int) -> Doubles:
    x = float_reference.attention(state, config, x, i, {})
    return float_reference.mlp(state, config, x, i, config.tasks[0].name, {})


def _square(x: Doubles) -> float:
    return float(total(np.square(x).reshape(-1)))
