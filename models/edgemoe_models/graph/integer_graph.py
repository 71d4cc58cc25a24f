"""The integer graph: everything that the accelerator computes with. NumPy only.

``edgemoe_models.graph.file`` writes and reads its file, and imports this module; not the other way round.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic.ops import ACCUMULATOR_LIMIT, CONTEXT_LIMIT
from edgemoe_models.arithmetic.tables import norm_constants
from edgemoe_models.config import ModelConfig

SIGNED_MAX, UNSIGNED_MAX = 127, 255  # largest activations
WEIGHT_BITS = 8, 4  # what a layer's weights may have

REMEDY = "quantize the checkpoint again"


#: The largest weight of 4 bits.
INT4_MAX = 7
_INT4 = re.compile(r"blocks\.\d+\.(qkv|proj|fc1|fc2|experts\.\d+\.fc[12])")


class GraphError(ValueError):
    """A graph or its file that cannot be used; the message says why and what to do."""


def may_be_int4(name: str) -> bool:
    """Whether the weights of the layer ``name`` may have 4 bits: those of attention, MLPs and experts."""
    return _INT4.fullmatch(name) is not None


@dataclasses.dataclass(frozen=True)
class IntegerLinear:
    """``requantize(x @ weight.T + bias)`` of N output channels and K inputs.

    Attributes:
        weight: int8 [N, K], symmetric: never -128
        bias: int32 [N]
        multiplier: uint16 [N]
        shift: uint8 [N], 0 to 47
        activation_shift: uint8 [N], 0 to 3, of the activation function behind it; None where there is none
        bits: of its weights: 8, or 4, where every weight lies in -7..7 and is stored as one nibble
    """

    weight: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    multiplier: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.uint8]
    activation_shift: npt.NDArray[np.uint8] | None = None
    bits: int = 8

    @property
    def outputs(self) -> int:
        """N."""
        return int(self.weight.shape[0])

    @property
    def inputs(self) -> int:
        """K."""
        return int(self.weight.shape[1])

    def bounds(self, max_activation: int) -> npt.NDArray[np.int64]:
        """Largest magnitude that each output channel's accumulator can reach, int64 [N]."""
        weights = np.abs(self.weight.astype(np.int64)).sum(1)
        result: npt.NDArray[np.int64] = max_activation * weights + np.abs(self.bias.astype(np.int64))
        return result


@dataclasses.dataclass(frozen=True)
class IntegerLayerNorm:
    """LayerNorm of D channels.

    Attributes:
        gamma: int16 [D]
        beta: int32 [D]
        shift: 0 to 31
        eps: uint32, in units of ``D^2`` times the variance
    """

    gamma: npt.NDArray[np.int16]
    beta: npt.NDArray[np.int32]
    shift: int
    eps: int

    @property
    def log2_dim(self) -> int:
        """``floor(log2(D))``."""
        return norm_constants(len(self.gamma))[0]

    @property
    def inv_dim(self) -> int:
        """1 / D in fixed point: ``2^(log2_dim + 16) / D``, rounded."""
        return norm_constants(len(self.gamma))[1]


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation function as ReLU plus an even table.

    Attributes:
        table: uint8 [512], by the magnitude of the 12-bit input; its last entry goes on
    """

    table: npt.NDArray[np.uint8]

    @property
    def base(self) -> int:
        """The table's last entry: what stands for zero before a channel's shift and the offset."""
        return int(self.table[-1])


@dataclasses.dataclass(frozen=True)
class Requant:
    """A requantization that all channels share.

    Attributes:
        multiplier: uint16
        shift: 0 to 47
    """

    multiplier: int
    shift: int


@dataclasses.dataclass(frozen=True)
class IntegerBlock:
    """A pre-norm block: attention, then an MLP or experts.

    Attributes:
        norm1: before attention
        qkv: queries, keys and values of all heads, [3 D, D]
        score: requantization of Q.K to 12-bit scores
        score_shift: from scores to powers of two, see docs/numerics.md
        context: requantization of P.V
        proj: attention's projection, which is added to the residual stream
        norm2: before the MLP or the experts
        activation: of the MLP or of all experts
        fc1: of a dense block's MLP; None in a MoE block
        fc2: of a dense block's MLP; None in a MoE block
        gates: of a MoE block, by task; empty in a dense block
        expert_fc1: of a MoE block, by expert
        expert_fc2: of a MoE block, by expert
    """

    norm1: IntegerLayerNorm
    qkv: IntegerLinear
    score: Requant
    score_shift: int
    context: Requant
    proj: IntegerLinear
    norm2: IntegerLayerNorm
    activation: Activation
    fc1: IntegerLinear | None = None
    fc2: IntegerLinear | None = None
    gates: dict[str, IntegerLinear] = dataclasses.field(default_factory=dict)
    expert_fc1: tuple[IntegerLinear, ...] = ()
    expert_fc2: tuple[IntegerLinear, ...] = ()

    @property
    def is_moe(self) -> bool:
        """Whether it has experts."""
        return bool(self.gates)


@dataclasses.dataclass(frozen=True)
class IntegerHead:
    """A task's head: one linear layer, or two with an activation between them.

    Attributes:
        out: the last layer, whose outputs are int16
        output_scale: real value of one unit of these
        fc1: the first of two layers; None where there is one
        activation: between the two; None where there is one
    """

    out: IntegerLinear
    output_scale: float
    fc1: IntegerLinear | None = None
    activation: Activation | None = None


@dataclasses.dataclass(frozen=True)
class IntegerGraph:
    """A whole quantized model.

    Attributes:
        config: the model's shape
        residual_scale: real value of one unit of the residual stream
        pos_embed: int16 [T, D], the class token added in row 0
        patch_embed: of unsigned pixels, K = 3 * patch * patch in (channel, y, x) order
        blocks: in order
        norm: after the last block
        heads: by task
        scales: real value of one unit of traced tensors (scalar or [C]), by the reference's trace names; reports only
        expert_use: share of the calibration images that use each expert, float32 [E], by ``blocks.{i}.{task}``; empty
            where nothing was measured. The compiler fetches likely experts ahead of the gate

    Raises:
        GraphError: a layer's weights do not fit into its ``bits``, or this layer cannot have so few.
    """

    config: ModelConfig
    residual_scale: float
    pos_embed: npt.NDArray[np.int16]
    patch_embed: IntegerLinear
    blocks: tuple[IntegerBlock, ...]
    norm: IntegerLayerNorm
    heads: dict[str, IntegerHead]
    scales: dict[str, npt.NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    expert_use: dict[str, npt.NDArray[np.float32]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, linear, _ in self.linears():
            if linear.bits not in WEIGHT_BITS:
                raise GraphError(f"{name}: bits must be one of {WEIGHT_BITS}, not {linear.bits!r}; {REMEDY}")
            if linear.bits == 8:
                continue
            if not may_be_int4(name):
                raise GraphError(f"{name}: this layer's weights have 8 bits, not {linear.bits}; {REMEDY}")
            if np.abs(linear.weight.astype(np.int16)).max(initial=0) > INT4_MAX:
                raise GraphError(
                    f"{name}: with {linear.bits} bits its weights must lie in {-INT4_MAX}..{INT4_MAX}; {REMEDY}"
                )
        if len(bits := {linear.bits for name, linear, _ in self.linears() if ".experts." in name}) > 1:
            raise GraphError(f"all experts' weights must have the same bits, not {sorted(bits)}; {REMEDY}")

    @property
    def expert_bits(self) -> int:
        """Bits of the experts' weights; 8 where there are none."""
        return next((block.expert_fc1[0].bits for block in self.blocks if block.expert_fc1), 8)

    @property
    def int4_layers(self) -> tuple[str, ...]:
        """Names of the layers other than experts' whose weights have 4 bits."""
        return tuple(name for name, linear, _ in self.linears() if linear.bits == 4 and ".experts." not in name)

    def linears(self) -> Iterator[tuple[str, IntegerLinear, int]]:
        """``(name, linear, max_activation)`` of every linear layer, in order of computation."""
        yield "patch_embed", self.patch_embed, UNSIGNED_MAX
        for i, block in enumerate(self.blocks):
            yield f"blocks.{i}.qkv", block.qkv, SIGNED_MAX
            yield f"blocks.{i}.proj", block.proj, SIGNED_MAX
            for field in ("fc1", "fc2"):
                if (linear := getattr(block, field)) is not None:
                    yield f"blocks.{i}.{field}", linear, SIGNED_MAX
            for task, gate in block.gates.items():
                yield f"blocks.{i}.gate.{task}", gate, SIGNED_MAX
            for e, pair in enumerate(zip(block.expert_fc1, block.expert_fc2, strict=True)):
                for field, linear in zip(("fc1", "fc2"), pair, strict=True):
                    yield f"blocks.{i}.experts.{e}.{field}", linear, SIGNED_MAX
        for task, head in self.heads.items():
            if head.fc1 is not None:
                yield f"heads.{task}.fc1", head.fc1, SIGNED_MAX
            yield f"heads.{task}", head.out, SIGNED_MAX

    def activated(self) -> Iterator[tuple[str, Activation, IntegerLinear]]:
        """Every layer with an activation function: the trace of its outputs, the function, the layer."""
        for i, block in enumerate(self.blocks):
            if block.fc1 is not None:
                yield f"blocks.{i}.hidden", block.activation, block.fc1
            for e, layer in enumerate(block.expert_fc1):
                yield f"blocks.{i}.experts.{e}.hidden", block.activation, layer
        for task, head in self.heads.items():
            if head.fc1 is not None and head.activation is not None:
                yield f"heads.{task}.hidden", head.activation, head.fc1

    def bound_check(self) -> None:
        """Prove that no accumulator can reach its limit (2^24, or 2^25 in P.V), whatever the image.

        Raises:
            GraphError: names the layer, its worst output channel and by how much it is too large.
        """
        for name, linear, max_activation in self.linears():
            bounds = linear.bounds(max_activation)
            worst = int(bounds.argmax())
            if bounds[worst] >= ACCUMULATOR_LIMIT:
                raise GraphError(
                    f"{name}: the accumulator of output channel {worst} may reach {bounds[worst]}, "
                    f"{bounds[worst] - ACCUMULATOR_LIMIT + 1} more than the 24 bits allow; "
                    f"scale this channel's weights down, or {REMEDY}"
                )
        tokens, head_dim = self.config.num_tokens, self.config.head_dim
        attention = {
            "scores": (SIGNED_MAX**2 * head_dim, ACCUMULATOR_LIMIT),
            "context": (UNSIGNED_MAX * SIGNED_MAX * tokens, CONTEXT_LIMIT),
        }
        for name, (bound, limit) in attention.items():
            if bound >= limit:
                raise GraphError(
                    f"blocks.*.{name}: the accumulators may reach {bound}, {bound - limit + 1} more than the "
                    f"{limit.bit_length() - 1} bits allow ({tokens} tokens, head_dim {head_dim}); use fewer tokens or "
                    "smaller heads"
                )
