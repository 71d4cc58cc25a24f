"""Edge-MoE's folder of raw weights (Sarkar et al., ICCAD 2023): ``NAME.float32.bin``, little-endian, [out, in].

The model has no final LayerNorm and no heads: its output is the last block's tokens. The position embedding of token 0
has the class token already added.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemoe_models import float_reference
from edgemoe_models.checkpoint import check_state
from edgemoe_models.config import ModelConfig
from edgemoe_models.exact.sums import mean, variance
from edgemoe_models.float_reference import Floats
from edgemoe_models.importers.assumptions import Assumptions
from edgemoe_models.importers.common import number_of_blocks, parse_tasks, seeded_heads, unit_norm
from edgemoe_models.importers.filled import fill_experts
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.positions import fitted, image_size

SUFFIX = ".float32.bin"
#: Of the paper's network: experts a token visits, tasks, how much wider than high an image is.
_TOP_K, _TASKS, _ASPECT = 2, "segmentation:8,depth", 2
_EXPERT_PARTS = {"w1": "htoh4_weight", "b1": "htoh4_bias", "w2": "h4toh_weight", "b2": "h4toh_bias"}


def import_edge_moe(folder: Path, options: ImportOptions) -> Imported:
    """The network in ``folder``; its image as 8-bit pixels when ``image.float32.bin`` is there.

    Raises:
        ImportRefused: lists every file that is missing (experts only if they are not to be filled in) or of a wrong
            size.
    """
    if not folder.is_dir():
        raise ImportRefused(f"Edge-MoE's weights are a folder of *{SUFFIX} files")
    sizes = {path.name.removesuffix(SUFFIX): path.stat().st_size for path in sorted(folder.glob(f"*{SUFFIX}"))}
    assumptions = Assumptions(options)
    config = _config(sizes, options, assumptions)
    files = _files(config)
    if "image" in sizes:
        files["image"] = "image", (3, config.image_height, config.image_width)
    absent = [name for name in files if name not in sizes and name.split("_", 1)[1] in _EXPERT_PARTS.values()]
    filled = [] if options.fill_missing is None else absent
    _check_sizes(sizes, {name: shape for name, (_, shape) in files.items() if name not in filled})
    state = {ours: _read(folder, name).reshape(shape) for name, (ours, shape) in files.items() if name not in filled}
    if options.fill_missing is not None and filled:
        fill_experts(state, config, [files[name][0] for name in filled], options.fill_missing)
    image = _pixels(state.pop("image")) if "image" in sizes else None
    state["pos_embed"], positions = fitted(state["pos_embed"], config.grid, options, _ASPECT)
    seed = options.seed_heads or 0
    state |= {"cls_token": np.zeros(config.dim, np.float32), **unit_norm(config.dim), **seeded_heads(config, seed)}
    notes = [f"heads drawn with seed {seed}: the network has none, its output is the tokens of the last block"]
    if filled:
        files_filled = ", ".join(f"{name}{SUFFIX}" for name in filled)
        notes.append(
            f"drawn with seed {options.fill_missing} because they are missing: {files_filled}; "
            "as loud as the dense blocks, but they have learnt nothing"
        )
    last = f"l{config.depth - 1}_x_post_{'moe' if config.is_moe(config.depth - 1) else 'mlp'}"
    used = set(files)
    if last in sizes and image is not None and not filled:
        notes.append(_compare(folder, last, check_state(state, config), config, image))
        used.add(last)
    notes += [positions, *assumptions.note()]
    unused = tuple(f"{name}{SUFFIX}" for name in sizes if name not in used)
    return Imported(state, config, tuple(notes), unused, image)


def _config(sizes: dict[str, int], options: ImportOptions, assumptions: Assumptions) -> ModelConfig:
    """The network's shape from the files' sizes."""

    def values(*names: str) -> int:
        found = next((sizes[name] for name in names if name in sizes), 0) // 4
        if not found:
            wanted = " or ".join(f"{name}{SUFFIX}" for name in names)
            raise ImportRefused(f"the network's shape cannot be told without {wanted}")
        return found

    dim = values("patch_embed_bias")
    patch = max(1, math.isqrt(values("patch_embed_weight") // (3 * dim)))
    tokens = values("pos_embed") // dim
    depth = number_of_blocks({int(match[1]) for name in sizes if (match := re.match(r"l(\d{1,18})_", name))})
    odd = range(1, depth, 2)
    experts = hidden = 0
    gates = {match[1] for name in sizes if (match := re.match(r"l\d+_w_gate_T_task(\d+)$", name))}
    tasks = parse_tasks(options.tasks, patch) if options.tasks else parse_tasks(_TASKS, patch)[: len(gates) or None]
    if odd:
        experts = max(1, values(*(f"l{i}_w_gate_T_task0" for i in odd)) // dim)
        biases = [f"l{i}_htoh4_bias" for i in odd if f"l{i}_htoh4_bias" in sizes]
        weights = [f"l{i}_{part}_weight" for i in odd for part in ("htoh4", "h4toh")]
        hidden = values(*biases) // experts if biases else values(*weights) // (experts * dim)
        if len(gates) != len(tasks):
            raise ImportRefused(f"the folder has gates of {len(gates)} tasks, but {len(tasks)} are named: give --tasks")
    height, width = image_size(options, tokens - 1, patch, _ASPECT)
    if (patches := (height // patch) * (width // patch)) != tokens - 1:
        raise ImportRefused(
            f"an image of {height} x {width} has {patches} patches of {patch} x {patch}, and the checkpoint position "
            f"embeddings for {tokens - 1}: check --image-height and --image-width"
        )
    activation = assumptions.activation()
    return ModelConfig(
        name=options.name,
        image_height=height,
        image_width=width,
        patch=patch,
        dim=dim,
        depth=depth,
        heads=assumptions.heads(dim),
        mlp_hidden=values("l0_fc1_bias"),
        num_experts=experts,
        top_k=(options.top_k or _TOP_K) if experts else 0,
        expert_hidden=hidden,
        tasks=tasks,
        eps=assumptions.eps(),
        activation=activation,
    )


def _files(config: ModelConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every file that the network needs: our tensor's name and its shape."""
    ours = {
        "patch_embed.weight": "patch_embed_weight",
        "patch_embed.bias": "patch_embed_bias",
        "pos_embed": "pos_embed",
    }
    for i in range(config.depth):
        layers = {"norm1": "norm1", "attn.qkv": "qkv", "attn.proj": "attn_proj", "norm2": "norm2"}
        if not config.is_moe(i):
            layers |= {"mlp.fc1": "fc1", "mlp.fc2": "fc2"}
        ours |= {
            f"blocks.{i}.{layer}.{part}": f"l{i}_{name}_{part}"
            for layer, name in layers.items()
            for part in ("weight", "bias")
        }
        if config.is_moe(i):
            ours |= {f"blocks.{i}.moe.{part}": f"l{i}_{name}" for part, name in _EXPERT_PARTS.items()}
            ours |= {
                f"blocks.{i}.moe.gate.{task.name}": f"l{i}_w_gate_T_task{t}" for t, task in enumerate(config.tasks)
            }
    shapes = float_reference.state_shapes(config)
    return {theirs: (name, shapes[name]) for name, theirs in ours.items()}


def _check_sizes(sizes: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
    missing = [f"{name}{SUFFIX} {list(shape)}" for name, shape in shapes.items() if name not in sizes]
    wrong = [
        f"{name}{SUFFIX} has {sizes[name]} bytes, not {4 * math.prod(shape)} of float32 {list(shape)}"
        for name, shape in shapes.items()
        if name in sizes and sizes[name] != 4 * math.prod(shape)
    ]
    lists = {"missing": missing, "of a wrong size": wrong}
    if problems := [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]:
        remedy = ". Missing experts can be filled with seeded values by --fill-missing SEED" if missing else ""
        raise ImportRefused(f"{'. '.join(problems)}{remedy}")


def _read(folder: Path, name: str) -> Floats:
    return np.fromfile(folder / f"{name}{SUFFIX}", "<f4").astype(np.float32)


def _pixels(values: Floats) -> npt.NDArray[np.uint8]:
    """An image [3, H, W] in 0..1 as 8-bit pixels [H, W, 3], truncated to k / 256 as Edge-MoE's pixel type does."""
    if not (values.min() >= 0 and values.max() <= 1):
        raise ImportRefused(
            f"image{SUFFIX} must lie in 0..1, not {values.min():g}..{values.max():g}: remove the file "
            "to import the network without it"
        )
    pixels: npt.NDArray[np.uint8] = np.minimum(np.floor(values.transpose(1, 2, 0) * 256), 255).astype(np.uint8)
    return pixels


def _compare(
    folder: Path, name: str, state: dict[str, Floats], config: ModelConfig, image: npt.NDArray[np.uint8]
) -> str:
    """The imported network's tokens beside the folder's own result for its image, in words."""
    seen: float_reference.Observed = {}
    float_reference.forward(state, config, image[None], config.tasks[0].name, seen)
    tokens = seen[f"blocks.{config.depth - 1}.residual2"]
    wanted = _read(folder, name)
    if wanted.size != tokens.size:
        return f"{name}{SUFFIX} has {wanted.size} values, not {tokens.size}: not compared"
    difference = np.abs(tokens.reshape(-1) - wanted)
    return (
        f"the last block's tokens, computed in float32, and {name}{SUFFIX} differ by {mean(difference):.3g} on "
        f"average, {difference.max():.3g} at most (their deviation is {np.sqrt(variance(wanted)):.3g})"
    )
