"""What all importers share: taking named tensors, folding the input's normalization, tasks and seeded heads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import LIMITS, TASK_KINDS, ModelConfig, TaskConfig
from edgemoe_models.exact.functions import standard_normal
from edgemoe_models.exact.sums import total
from edgemoe_models.float_reference import Floats, state_shapes
from edgemoe_models.importers.facts import NOTHING, Facts
from edgemoe_models.importers.options import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImportOptions,
    ImportRefused,
    Triple,
)

_CELLS = 4  # output cells along a patch's side of a head that is made here
_CHANNELS = {"depth": 1, "normals": 3, "edges": 1}


class Source:
    """A foreign checkpoint's tensors, taken one by one, so that all that is wrong with it is said at once."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self.left = dict(tensors)
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor without which nothing else can be known."""
        if name not in self.left:
            raise ImportRefused(f"the checkpoint lacks {name}, which gives the model's shape")
        shape = self.left[name].shape
        if len(shape) != dimensions:
            raise ImportRefused(f"{name} must have {dimensions} dimensions, not the shape {list(shape)}")
        return shape

    def take(self, name: str, *shape: int) -> Floats:
        """The tensor in float32; zeros of its shape, and the name kept for ``finish``, when it is not there."""
        array = self.left.pop(name, None)
        if array is None:
            self.missing.append(f"{name} {list(shape)}")
        elif array.shape != shape:
            self.wrong.append(f"{name} must be {list(shape)}, not {list(array.shape)}")
        else:
            return np.ascontiguousarray(array, np.float32)
        return np.zeros(shape, np.float32)

    def finish(self, may_remain: Callable[[str], bool] = lambda name: False) -> tuple[str, ...]:
        """Names of the tensors that were left and may be.

        Raises:
            ImportRefused: lists every tensor that is missing, of a wrong shape or not understood.
        """
        unused = sorted(name for name in self.left if may_remain(name))
        unknown = sorted(set(self.left) - set(unused))
        lists = {"missing": self.missing, "of a wrong shape": self.wrong, "not understood": unknown}
        if problems := [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]:
            raise ImportRefused("the checkpoint does not fit. " + ". ".join(problems))
        return tuple(unused)


def block_numbers(names: Mapping[str, object]) -> int:
    """How many ``blocks.{i}`` there are."""
    numbers = {int(match[1]) for name in names if (match := re.match(r"blocks\.(\d{1,18})\.", name))}
    if not numbers:
        raise ImportRefused("the checkpoint has no blocks.0.* tensors")
    return number_of_blocks(numbers)


def number_of_blocks(numbers: Collection[int]) -> int:
    """How many blocks these are the numbers of; none more than a model may have, or than loops should run."""
    last = max(numbers, default=0)
    if last >= LIMITS["depth"]:
        raise ImportRefused(f"the checkpoint has a block {last}, but a model has at most {LIMITS['depth']} blocks")
    return last + 1


def take_linear(source: Source, theirs: str, outputs: int, inputs: int, ours: str) -> dict[str, Floats]:
    """A linear layer's weight [outputs, inputs] and bias."""
    return {
        f"{ours}.weight": source.take(f"{theirs}.weight", outputs, inputs),
        f"{ours}.bias": source.take(f"{theirs}.bias", outputs),
    }


def take_norm(source: Source, name: str, dim: int) -> dict[str, Floats]:
    """A LayerNorm, called the same in both."""
    return {f"{name}.{part}": source.take(f"{name}.{part}", dim) for part in ("weight", "bias")}


def take_attention(source: Source, block: str, dim: int) -> dict[str, Floats]:
    """Both LayerNorms and the attention of a block that timm's names describe."""
    return {
        **take_norm(source, f"{block}.norm1", dim),
        **take_norm(source, f"{block}.norm2", dim),
        **take_linear(source, f"{block}.attn.qkv", 3 * dim, dim, f"{block}.attn.qkv"),
        **take_linear(source, f"{block}.attn.proj", dim, dim, f"{block}.attn.proj"),
    }


def take_patches(source: Source, options: ImportOptions, facts: Facts = NOTHING) -> dict[str, Floats]:
    """Patch embedding of timm's names, its input normalization folded in."""
    dim, _, patch, _ = source.shape("patch_embed.proj.weight", 4)
    weight = source.take("patch_embed.proj.weight", dim, 3, patch, patch).reshape(dim, -1)
    bias = source.take("patch_embed.proj.bias", dim)
    weight, bias = fold_normalization(weight, bias, *normalization(options, facts)[:2])
    return {"patch_embed.weight": weight, "patch_embed.bias": bias}


def take_embedding(source: Source, options: ImportOptions) -> dict[str, Floats]:
    """Patch embedding (its input normalization folded in), class token and position embeddings of timm's names."""
    dim, tokens = source.shape("patch_embed.proj.weight", 4)[0], source.shape("pos_embed", 3)[1]
    return {
        **take_patches(source, options),
        "cls_token": source.take("cls_token", 1, 1, dim)[0, 0],
        "pos_embed": source.take("pos_embed", 1, tokens, dim)[0],
    }


def normalization(options: ImportOptions, facts: Facts = NOTHING) -> tuple[Triple, Triple, str]:
    """Mean and deviation of the pixels that the network was trained with, and what the user must know about them."""
    mean, std = options.mean or facts.mean or IMAGENET_MEAN, options.std or facts.std or IMAGENET_STD
    source = "ImageNet's; if it was another, give --mean and --std"
    if options.mean or options.std:
        source = "as given"
    elif facts.mean or facts.std:
        source = f"of {facts.source}"
    return mean, std, f"input normalization folded into the patch embedding: mean {mean}, deviation {std} ({source})"


def fold_normalization(weight: Floats, bias: Floats, mean: Triple, std: Triple) -> tuple[Floats, Floats]:
    """A patch embedding of ``(k / 255 - mean) / std`` as one of ``k / 256``, the pixels that our models take.

    weight: [D, 3 * p * p] in (channel, y, x) order; bias: [D].
    """
    if not all(math.isfinite(x) for x in (*mean, *std)) or min(std) <= 0:
        raise ImportRefused(f"--mean must be finite and --std positive, not {mean} and {std}")
    channels = weight.astype(np.float64).reshape(len(weight), 3, -1) / np.asarray(std)[:, None]
    folded = (channels * (256 / 255)).reshape(weight.shape)
    offset = total(total(channels) * np.asarray(mean))
    return folded.astype(np.float32), (bias - offset).astype(np.float32)


def parse_tasks(text: str, patch: int) -> tuple[TaskConfig, ...]:
    """Tasks with one linear layer as head, from ``NAME=KIND:CHANNELS,...``; the name is the kind unless given."""
    tasks = []
    for item in text.split(","):
        match = re.fullmatch(r"(?:([\w-]+)=)?(\w+)(?::(\d+))?", item.strip())
        kind = match[2] if match else ""
        channels = int(match[3]) if match and match[3] else _CHANNELS.get(kind)
        if match is None or kind not in TASK_KINDS or channels is None:
            raise ImportRefused(
                f"--tasks must be NAME=KIND:CHANNELS separated by commas, KIND one of "
                f"{', '.join(TASK_KINDS)}, and CHANNELS given for segmentation and classification; "
                f"not {item.strip()!r}"
            )
        cells = 1 if kind == "classification" else min(_CELLS, patch)
        tasks.append(TaskConfig(match[1] or kind, kind, channels, cells=cells))
    return tuple(tasks)


def unit_norm(dim: int) -> dict[str, Floats]:
    """A final LayerNorm that only normalises, for models without one."""
    return {"norm.weight": np.ones(dim, np.float32), "norm.bias": np.zeros(dim, np.float32)}


def seeded_heads(config: ModelConfig, seed: int) -> dict[str, Floats]:
    """Heads of normal weights with variance 1 / inputs and no bias. They have learnt nothing."""
    rng = np.random.Generator(np.random.PCG64(seed))
    shapes = {name: shape for name, shape in state_shapes(config).items() if name.startswith("heads.")}
    return {name: draw_weights(rng, shape) for name, shape in shapes.items()}


def draw_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Weights [..., outputs, inputs] of variance 1 / inputs; zeros for a bias."""
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    return (standard_normal(rng, shape) / math.sqrt(shape[-1])).astype(np.float32)
