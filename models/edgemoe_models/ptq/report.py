"""How much each layer's outputs err: the float model against its integer graph on the same images. NumPy only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models import float_reference
from edgemoe_models.float_reference import Observed, State
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.integer.reference import Trace
from edgemoe_models.ptq.activations import activation_scales

#: Tensors whose means quantization may move into the next layer's biases; softmax or what follows does not see it.
_SHIFTED = ("norm", "norm1", "norm2", "k", "v", "context")
COLUMNS = ("norm1", "q", "k", "v", "context", "residual1", "norm2", "hidden", "output")

#: Share of a tensor's values that may be clipped on pictures that had no part in its range.
MOST_CLIPPED = 0.01
_NAMED = 10

Array = npt.NDArray[Any]


class _Noise:
    """Sums from which signal and noise of one tensor follow, over rows of channels."""

    def __init__(self) -> None:
        self.rows = 0
        self.sums: list[Array] = []

    def update(self, wanted: Array, found: Array) -> None:
        x = wanted.astype(np.float64)
        error: Array = found - x
        self.rows += len(x)
        new = [x.sum(0), np.square(x).sum(0), error.sum(0), np.square(error).sum(0)]
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.sums else new

    def decibels(self, is_shifted: bool) -> float:
        """Variance of the signal over the mean square of the error, or over its variance for a shifted tensor."""
        x, xx, error, errors = (total / self.rows for total in self.sums)
        noise = (errors - np.square(error) if is_shifted else errors).sum()
        signal = (xx - np.square(x)).sum()
        return 10 * math.log10(max(float(signal), 1e-30) / max(float(noise), 1e-30))


@dataclasses.dataclass(frozen=True)
class LayerErrors:
    """What quantization did to every tensor, on some images.

    Attributes:
        ratios: signal-to-noise ratios in dB, by trace name
        clipped: share of the integers that are at their format's limits, by trace name
        same_expert: share of the choices of experts that float and integer gate have in common, by MoE block
    """

    ratios: dict[str, float]
    clipped: dict[str, float]
    same_expert: dict[str, float]

    def worst(self, count: int = 10) -> list[str]:
        """Names of the tensors with the smallest ratios, the worst one first."""
        return sorted(self.ratios, key=lambda name: (self.ratios[name], name))[:count]


def layer_errors(state: State, graph: IntegerGraph, images: npt.NDArray[np.uint8]) -> LayerErrors:
    """Compare float model and integer graph on images [B, H, W, 3], all tasks together.

    ``blocks.{i}.hidden`` of an MoE block are the tokens that float and integer gate send to the same expert.
    """
    noises: dict[str, _Noise] = {}
    equal: dict[str, int] = {}
    clipped: dict[str, list[int]] = {}
    for task in graph.config.tasks:
        for image in images:
            seen: Observed = {}
            trace: Trace = {}
            float_reference.forward(state, graph.config, image[None], task.name, seen)
            reference.run(graph, image, task.name, trace)
            for name, wanted, found in _pairs(graph, seen, trace):
                noises.setdefault(name, _Noise()).update(wanted, found)
            for name in (name for name in seen if name.endswith(".queues")):
                same = sum(len(np.intersect1d(*pair)) for pair in zip(seen[name], trace[name], strict=True))
                block = name.removesuffix(".queues")
                equal[block] = equal.get(block, 0) + same
            for name in graph.scales.keys() & trace.keys():
                where = f"{name.partition('.experts.')[0]}.hidden" if ".experts." in name else name
                counts = clipped.setdefault(where, [0, 0])
                counts[0] += _at_limits(name, trace[name])
                counts[1] += trace[name].size
    ratios = {name: noise.decibels(name.rpartition(".")[2] in _SHIFTED) for name, noise in noises.items()}
    choices = len(images) * len(graph.config.tasks) * graph.config.num_tokens * graph.config.top_k
    return LayerErrors(
        ratios,
        {name: count / max(1, values) for name, (count, values) in sorted(clipped.items()) if name in ratios},
        {block: count / choices for block, count in equal.items()},
    )


def _at_limits(name: str, x: Array) -> int:
    """How many integers have the largest magnitude of their tensor's format."""
    last = name.rpartition(".")[2]
    if last == "hidden":  # an activation function's zero is near the least integer
        return int(np.count_nonzero(x >= 127))
    is_wide = last in ("embed", "residual1", "residual2") or name.startswith("heads.")
    return int(np.count_nonzero(np.abs(x) >= (32767 if is_wide else 127)))


def _pairs(graph: IntegerGraph, seen: Observed, trace: Trace) -> Iterator[tuple[str, Array, Array]]:
    """Name, float rows and the integer graph's rows of every tensor that both have."""
    centres = {name: scale.centre(shift) for name, scale, shift in activation_scales(graph)}
    for name, scale in graph.scales.items():
        if name not in seen or name not in trace or name.endswith((".scores", ".gate_logits")):
            continue
        wanted, found = seen[name], trace[name] * scale + centres.get(name, 0.0)
        if ".experts." in name:
            block, e = name.split(".experts.")[0], int(name.split(".")[3])
            _, *at = np.intersect1d(seen[f"{block}.queues"][e], trace[f"{block}.queues"][e], return_indices=True)
            yield f"{block}.hidden", wanted[at[0]], found[at[1]]
        else:
            yield name, wanted.reshape(found.shape), found


def report(errors: LayerErrors, graph: IntegerGraph) -> Iterator[dict[str, Any]]:
    """The ratios by layer: ``layer``, those of ``COLUMNS`` that it has, ``same_expert`` of a MoE block."""
    blocks = [f"blocks.{i}" for i in range(graph.config.depth)]
    for layer in ["embed", *blocks, "norm", *(f"heads.{task.name}" for task in graph.config.tasks)]:
        names = {column: f"{layer}.{column}" for column in COLUMNS}
        names["output"] = f"{layer}.residual2" if layer in blocks else layer
        found = {column: errors.ratios[name] for column, name in names.items() if name in errors.ratios}
        same = errors.same_expert
        yield {"layer": layer, **found} | ({"same_expert": same[layer]} if layer in same else {})


def clipping_note(clipped: Mapping[str, float], where: str) -> str | None:
    """One line that names the tensors of which more than ``MOST_CLIPPED`` is clipped, worst first; none if none is."""
    over = sorted((name for name, share in clipped.items() if share > MOST_CLIPPED), key=lambda name: -clipped[name])
    if not over:
        return None
    named = ", ".join(f"{name} {100 * clipped[name]:.1f} %" for name in over[:_NAMED])
    more = f" and {len(over) - _NAMED} more" if len(over) > _NAMED else ""
    return (
        f"more than {MOST_CLIPPED:.0%} clipped {where}: {named}{more}; calibrate with more, or more different, pictures"
    )
