"""M3ViT's own checkpoints (Liang et al., NeurIPS 2022; FastMoE layers): the backbone with its gates and experts.

``blocks.{i}.mlp.experts.htoh4.weight [E, H, D]``, ``.h4toh.weight [E, D, H]`` and their biases; gates
``blocks.{i}.mlp.gate.{t}.w_gate [D, E]`` for task t, or one ``blocks.{i}.mlp.gate.w_gate`` for all. Names may begin
with ``module.`` and ``backbone.``.
"""

from __future__ import annotations

import math
import re

from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import Floats
from edgemoe_models.importers.assumptions import Assumptions
from edgemoe_models.importers.common import (
    Source,
    block_numbers,
    normalization,
    parse_tasks,
    seeded_heads,
    take_attention,
    take_embedding,
    take_linear,
    unit_norm,
)
from edgemoe_models.importers.files import Tensors
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.positions import fitted, image_size

#: Convolutional decoders, layers between tasks, auxiliary outputs of gates: trained beside the backbone.
_BESIDE = re.compile(r"(decoders?|tam_model\d*)\.|.*\.gate\.(\d+\.)?(w_gate_aux|head\.(weight|bias))$")


def import_m3vit(tensors: Tensors, options: ImportOptions) -> Imported:
    """The backbone, with heads of seeded values in place of M3ViT's convolutional decoders.

    Raises:
        ImportRefused: an option is missing that the checkpoint cannot answer, a gate is of a kind that we have not, or
            a tensor is missing, unknown or of another shape.
    """
    source, assumptions = Source(tensors), Assumptions(options)
    _refuse_other_gates(source)
    gates = _gates(source)
    seed, top_k, tasks_text = _required(source, options, gates)
    state = take_embedding(source, options)
    dim, depth = len(state["cls_token"]), block_numbers(source.left)
    patch = math.isqrt(state["patch_embed.weight"].shape[1] // 3)
    tasks = parse_tasks(tasks_text, patch)
    if gates and len(gates) != len(tasks):
        raise ImportRefused(f"the checkpoint has {len(gates)} gates a block, but --tasks names {len(tasks)} tasks")
    moe = [i for i in range(depth) if f"blocks.{i}.mlp.experts.htoh4.weight" in source.left]
    period = moe[0] + 1 if moe else 0
    if not moe or moe != list(range(moe[0], depth, period)):
        raise ImportRefused(f"every n-th of the {depth} blocks must have experts, not the blocks {moe}")
    experts, expert_hidden, _ = source.shape(f"blocks.{moe[0]}.mlp.experts.htoh4.weight", 3)
    hidden = dim if period == 1 else source.shape("blocks.0.mlp.fc1.weight", 2)[0]
    height, width = image_size(options, len(state["pos_embed"]) - 1, patch)
    activation = assumptions.activation()
    config = ModelConfig(
        name=options.name,
        image_height=height,
        image_width=width,
        patch=patch,
        dim=dim,
        depth=depth,
        heads=assumptions.heads(dim),
        mlp_hidden=hidden,
        num_experts=experts,
        top_k=top_k,
        expert_hidden=expert_hidden,
        tasks=tasks,
        moe_every=period,
        eps=assumptions.eps(),
        activation=activation,
    )
    state["pos_embed"], positions = fitted(state["pos_embed"], config.grid, options)
    for i in range(depth):
        state |= take_attention(source, f"blocks.{i}", dim)
        state |= _experts(source, config, i, bool(gates)) if config.is_moe(i) else _dense(source, config, i)
    unused = source.finish(lambda name: _BESIDE.match(name) is not None)
    notes = [
        normalization(options)[2],
        f"heads drawn with seed {seed}: M3ViT's decoders are convolutions, which our heads are not. Train them",
        f"top_k {top_k} as given: the checkpoint does not say it",
        positions,
        *assumptions.note(),
    ]
    if not gates:
        notes.append(f"one gate a block for all tasks, copied to {', '.join(task.name for task in tasks)}")
    return Imported({**state, **unit_norm(dim), **seeded_heads(config, seed)}, config, tuple(notes), unused)


def _refuse_other_gates(source: Source) -> None:
    """Gates whose function is not "softmax over all experts of a linear map of the token"."""
    if any(name.startswith("gate_task_represent.") for name in source.left):
        raise ImportRefused(
            "the gates see a task embedding (gate_task_represent): only one gate a task (multi_gate) "
            "or one gate for all tasks can be imported"
        )
    if any(name.endswith(".w_noise") for name in source.left):
        raise ImportRefused(
            "the gates (w_noise, gate type 'noisy') renormalise their scores over the chosen experts; "
            "only gate type 'noisy_vmoe' can be imported: its scores are the softmax over all experts"
        )


def _gates(source: Source) -> list[str]:
    """Numbers of the task gates in their order; empty when each block has one for all."""
    found = {match[1] for name in source.left if (match := re.match(r"blocks\.\d+\.mlp\.gate\.(\d+)\.w_gate$", name))}
    gates = sorted(found, key=int)
    if gates != [str(i) for i in range(len(gates))]:
        raise ImportRefused(f"gates must be numbered from 0, not {', '.join(gates)}")
    return gates


def _required(source: Source, options: ImportOptions, gates: list[str]) -> tuple[int, int, str]:
    """Seed of the heads, top_k and tasks; they and the number of heads must be given (vit_small has heads of 32)."""
    if options.seed_heads is None:
        raise ImportRefused(
            "M3ViT's decoders are convolutions, which our heads are not: only the backbone can be "
            "imported. Give --seed-heads SEED to get heads of seeded values, which have to be trained"
        )
    if options.top_k is None or options.heads is None:
        raise ImportRefused(
            "the checkpoint does not say how many experts a token visits and how many attention heads "
            "there are: give --top-k and --heads (moe_top_k and num_heads of its training)"
        )
    if options.tasks is None:
        names = sorted({match[1] for name in source.left if (match := re.match(r"decoders\.([^.]+)\.", name))})
        decoders = f" (it has the decoders {', '.join(names)})" if names else ""
        raise ImportRefused(
            f"the checkpoint does not say which gate is whose{decoders}: give --tasks in the order of "
            f"its {len(gates) or 1} gates, e.g. --tasks semseg=segmentation:40,depth"
        )
    return options.seed_heads, options.top_k, options.tasks


def _dense(source: Source, config: ModelConfig, i: int) -> dict[str, Floats]:
    name = f"blocks.{i}.mlp"
    return {
        **take_linear(source, f"{name}.fc1", config.mlp_hidden, config.dim, f"{name}.fc1"),
        **take_linear(source, f"{name}.fc2", config.dim, config.mlp_hidden, f"{name}.fc2"),
    }


def _experts(source: Source, config: ModelConfig, i: int, has_task_gates: bool) -> dict[str, Floats]:
    name, e, h, d = f"blocks.{i}.mlp", config.num_experts, config.expert_hidden, config.dim
    ours = f"blocks.{i}.moe"
    state = {
        f"{ours}.w1": source.take(f"{name}.experts.htoh4.weight", e, h, d),
        f"{ours}.b1": source.take(f"{name}.experts.htoh4.bias", e, h),
        f"{ours}.w2": source.take(f"{name}.experts.h4toh.weight", e, d, h),
        f"{ours}.b2": source.take(f"{name}.experts.h4toh.bias", e, d),
    }
    shared = None if has_task_gates else source.take(f"{name}.gate.w_gate", d, e).T.copy()
    for t, task in enumerate(config.tasks):
        gate = source.take(f"{name}.gate.{t}.w_gate", d, e).T.copy() if shared is None else shared
        state[f"{ours}.gate.{task.name}"] = gate
    return state
