"""From integer graph to commands in sequential order: one program's whole inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgemoe.bundle import Joined
from edgemoe.compiler.attention import Attention
from edgemoe.compiler.builder import Builder, Chunk, Job, Region
from edgemoe.compiler.cuts import Group
from edgemoe.compiler.errors import TOO_LARGE, CompileError, CompilerOptions
from edgemoe.compiler.experts import ExpertsPlan, emit_experts
from edgemoe.compiler.fork import ResidualCopy
from edgemoe.compiler.head import Heads, Outputs
from edgemoe.compiler.mlp import MlpPlan, emit_dense
from edgemoe.compiler.packing import DramImage, DramObject
from edgemoe.compiler.sequences import TokenSequences
from edgemoe.compiler.trace import Trace
from edgemoe.layout import OutputPart, align
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, FieldError, MatMul, Mode
from edgemoe_models.graph.integer_graph import IntegerBlock, IntegerGraph, IntegerLayerNorm

__all__ = ["Lowered", "input_object", "lower"]


@dataclass
class Lowered:
    """One program's commands in sequential order and what the host needs to use them.

    ``outputs``: where the head's outputs of each sequence lie.
    """

    builder: Builder
    trace: Trace
    sequences: TokenSequences
    outputs: list[list[OutputPart]]
    output_bytes: int


def input_object(config: AcceleratorConfig, patches: int, inputs: int) -> DramObject:
    """The image's patches [P, inputs] uint8 in DRAM: each patch padded to whole activation rows."""
    rows = patches * -(-inputs // config.lanes_k)
    slice_bytes = config.row_bytes["ACT"] // config.load_masters("ACT")
    return DramObject("ACT", 0, align(rows * slice_bytes), slice_bytes, rows)


class _Norm:
    """Emits one LayerNorm group by group; its parameters are loaded at the first group, or earlier by ``load``."""

    def __init__(self, lowering: _Lowering, name: str, norm: IntegerLayerNorm, target: Region) -> None:
        self.lowering, self.name, self.norm, self.target = lowering, name, norm, target
        self.row: int | None = None

    def load(self) -> int:
        if self.row is None:
            self.row = self.lowering.b.load_norm(self.name, self.norm)
        return self.row

    def __call__(self, group: Group) -> None:
        low = self.lowering
        command = low.b.layernorm(self.norm, self.load(), group, low.residual, self.target, self.name)
        low.trace.add(self.name, command, group, 0, low.b.model.dim)


class _Lowering:
    """One program: places the activations of its sequences and walks the model."""

    def __init__(
        self,
        graph: IntegerGraph,
        config: AcceleratorConfig,
        options: CompilerOptions,
        image: DramImage,
        sequences: TokenSequences,
    ) -> None:
        model = graph.config
        self.graph, self.config, self.sequences = graph, config, sequences
        self.b = Builder(config, model, options, image)
        self.trace = Trace(model.num_tokens)
        self.residual = Region(0, -(-model.dim // config.epilogue_lanes))
        width = max(-(-model.dim // config.lanes_k), model.heads * -(-model.head_dim // config.lanes_k))
        self.rows = sequences.all_tokens * width  # of one activation tensor of width dim, of every sequence
        # Two buffers at the ends: LayerNorm 1 -> low (then context), q -> high, LayerNorm 2 -> high, and the next
        # block the other way round (or context -> high, LayerNorm 2 -> low, where attention says so); hidden rows may
        # use all but the buffer with LayerNorm 2's output.
        self.buffers = [Region(0, width), Region(config.act_depth - self.rows, width)]
        #: The places that are computed so far: those of the trunk, from the first gate on all.
        self.places = sequences.trunk
        self.copy = ResidualCopy(self.b, self.residual, sequences)

    def run(self) -> Lowered:
        """Emit everything. A LayerNorm belongs to the phase whose matrix products it hides behind."""
        blocks = self.graph.blocks
        x, other = self.buffers
        self._embed(_Norm(self, "blocks.0.norm1", blocks[0].norm1, x))
        attention = self._attention_of(0)
        for i, block in enumerate(blocks):
            name = f"blocks.{i}"
            x, other = self._attention(attention, block, x, other)
            phase = self.b.phase(f"{name}.moe" if block.is_moe else f"{name}.mlp")
            hidden_row = self.rows if x == self.buffers[0] else 0
            plan = MlpPlan(x, self.residual, hidden_row, self.config.act_depth - self.rows)
            after = None
            if i + 1 < len(blocks):
                after = _Norm(self, f"blocks.{i + 1}.norm1", blocks[i + 1].norm1, x)
                attention = self._attention_of(i + 1)
            groups = self.sequences.all_groups(self.places)
            if block.is_moe:
                preload = [] if after is None else [after.load, attention.preload]
                experts = ExpertsPlan(plan, self._expert_use(name))
                emit_experts(self.b, self.trace, name, block, self.sequences, experts, phase, preload)
                if after is not None:
                    for group in groups:
                        after(group)
            else:
                emit_dense(self.b, self.trace, name, block, plan, groups, after, phase)
                phase.bytes_read += self._linear_bytes(f"{name}.fc1", f"{name}.fc2")
        outputs = Outputs([[] for _ in self.sequences.members], self.copy.bytes)
        Heads(self.b, self.trace, self.graph, self.sequences, self.residual, self.buffers[0], outputs).emit()
        return Lowered(self.b, self.trace, self.sequences, outputs.parts, outputs.size)

    def _expert_use(self, name: str) -> list[float]:
        """How likely each expert of a block is chosen by a sequence, or by a wave of ``moe_group`` tokens."""
        model = self.b.model
        tokens = self.b.options.moe_group or model.num_tokens
        balanced = 1 - (1 - model.top_k / model.num_experts) ** tokens
        unused = np.ones(model.num_experts)
        for task in self.sequences.tasks:
            measured = self.graph.expert_use.get(f"{name}.{task}", np.ones(model.num_experts))
            unused *= (1 - measured * balanced) ** self.sequences.images
        return [1 - float(share) for share in unused]

    def _embed(self, after: Callable[[Group], None]) -> None:
        """Position embeddings into the residual stream, then the patch embedding added to the patches' tokens."""
        b, model, prefix = self.b, self.b.model, self.b.model.prefix_tokens
        tokens, groups = model.num_tokens, self.sequences.all_groups(self.places)
        phase = b.phase("embed")
        layout = b.image.add_linear("patch_embed", self.graph.patch_embed)
        position = b.image.add_residual("pos_embed", self.graph.pos_embed)
        first_image = input_object(self.config, model.num_patches, model.patch_inputs)
        image_bytes = first_image.plane_stride * self.config.load_masters("ACT")
        stride = layout.k_steps
        largest = max(group.count for group in groups) * stride
        available = self.config.act_depth - self.rows
        slots = min(available // largest, len(groups))
        held: list[Group | None] = [None] * slots  # patches that are on chip; all groups at once if they fit
        positioned: set[Group] = set()

        def fetch(group: Group) -> tuple[Group, int]:
            """Loads of a group that are not there yet; returns its tokens that have patches, and the patches' row."""
            image, begin = divmod(group.first, tokens)
            first = max(begin, prefix)
            count = max(begin + group.count - first, 0)
            slot = groups.index(group) % slots
            patches = self.rows + slot * largest
            if group not in positioned:
                positioned.add(group)
                row, rows = begin * self.residual.stride, group.count * self.residual.stride
                command = b.load(position, row, rows, self.residual.row(group.first), "pos_embed")
                if begin < prefix:
                    whole = Group(group.first, min(prefix, begin + group.count) - begin)
                    self.trace.add("embed", command, whole, 0, model.dim)
            if count and held[slot] != group:
                held[slot] = group
                source = dataclasses.replace(first_image, offset=image * image_bytes)
                b.load(source, (first - prefix) * stride, count * stride, patches, "patches", Base.INPUT)
            return Group(image * tokens + first, count), patches

        def emit(chunk: Chunk, group: Group) -> None:
            part, patches = fetch(group)
            if part.count:
                command = b.matmul(
                    chunk,
                    part,
                    "patch_embed",
                    MatMul(
                        unsigned=True,
                        src_base=patches,
                        src_stride=stride,
                        mode=Mode.RESIDUAL,
                        accumulate=True,
                        dst_base=self.residual.row(part.first),
                        dst_stride=self.residual.stride,
                        dst_channel=chunk.channel,
                    ),
                )
                self.trace.add("embed", command, part, chunk.channel, chunk.channels)

        fetch(groups[0])  # ahead of the weights: computing can start with their first chunk
        b.stream([Job(layout, emit)], groups, after, single_set=slots < len(groups))
        images = self.sequences.images
        phase.macs += images * model.num_patches * layout.macs
        phase.bytes_read += (
            self._linear_bytes("patch_embed")
            + 2 * self.graph.pos_embed.size
            + images * model.num_patches * model.patch_inputs
            + self._norm_bytes
        )

    def _attention_of(self, index: int) -> Attention:
        name, block = f"blocks.{index}", self.graph.blocks[index]
        return Attention(self.b, self.trace, name, block, self.sequences, self.places)

    def _attention(self, attention: Attention, block: IntegerBlock, x: Region, other: Region) -> tuple[Region, Region]:
        """Attention of ``x`` with its projection; returns where LayerNorm 2's output is, and the other region.

        Ahead of the first gate every task gets a residual stream of its own: a copy of the trunk's while attention
        computes, to which the projection of the trunk's context is then added, for each task by itself.
        """
        b, model, name = self.b, self.b.model, attention.name
        phase = b.phase(f"{name}.attention")
        computed, fork = len(self.places), block.is_moe and len(self.places) < self.sequences.places
        context, free = attention.emit(x, other, self.copy if fork else None)
        if fork:
            self.places = range(self.sequences.places)

        def project(chunk: Chunk, group: Group) -> None:
            command = b.matmul(
                chunk,
                group,
                f"{name}.proj",
                MatMul(
                    src_base=context.row((self.sequences.trunk_group(group) if fork else group).first),
                    src_stride=context.stride,
                    mode=Mode.RESIDUAL,
                    accumulate=True,
                    dst_base=self.residual.row(group.first),
                    dst_stride=self.residual.stride,
                    dst_channel=chunk.channel,
                ),
            )
            self.trace.add(f"{name}.residual1", command, group, chunk.channel, chunk.channels)

        groups = self.sequences.all_groups(self.places)
        b.stream([Job(attention.proj, project)], groups, _Norm(self, f"{name}.norm2", block.norm2, free))
        tokens, dim = computed * model.num_tokens, model.dim
        phase.macs += 4 * tokens * dim * dim + 2 * tokens * model.num_tokens * dim
        phase.bytes_read += self._linear_bytes(f"{name}.qkv", f"{name}.proj") + self._norm_bytes
        return free, context

    @property
    def _norm_bytes(self) -> int:
        """Least bytes of one LayerNorm: gamma int16 and beta int32."""
        return 6 * self.b.model.dim

    def _linear_bytes(self, *names: str) -> int:
        """Least bytes of linear layers: weights and int32 biases, without padding."""
        linears = (linear for name, linear, _ in self.graph.linears() if name in names)
        return sum(-(-linear.weight.size * linear.bits // 8) + 4 * linear.outputs for linear in linears)


def lower(
    graph: IntegerGraph,
    config: AcceleratorConfig,
    options: CompilerOptions,
    image: DramImage,
    joined: Joined,
) -> Lowered:
    """Lower one program. Weights go to ``image``, where programs share them.

    The model's shape fits (:mod:`edgemoe.compiler.fits`).

    Raises:
        CompileError: it does not all the same, as weights would have to lie
    """
    sequences = TokenSequences(graph.config, joined, options.group_tokens)
    lowering = _Lowering(graph, config, options, image, sequences)
    try:
        return lowering.run()
    except FieldError as error:
        raise CompileError(f"{lowering.b.phases[-1].name}: {TOO_LARGE}: {error}") from None
