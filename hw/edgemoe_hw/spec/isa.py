"""Opcodes and command layouts: the single declaration that RTL, compiler, simulators and documentation share.

A command has 512 bits: a header that every engine understands and a payload that depends on the opcode. Engines run
concurrently; each finishes its commands in program order and counts them. A header's ``waits`` hold, for each engine,
the number of commands that it must have finished (since BEGIN, modulo 2**16, programs are shorter) before this command
may start.

Plain Python: the RTL's structs are made from it in ``edgemoe_hw.layouts``.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from edgemoe_hw.spec.config import ISA_VERSION
from edgemoe_hw.spec.constants import (
    COMMAND_BITS,
    COMMAND_BYTES,
    COUNT_BITS,
    DIM_BITS,
    EXPERT_BITS,
    EXPERT_COUNT_BITS,
    ROW_BITS,
    TOKEN_BITS,
    TOP_K_BITS,
)
from edgemoe_hw.spec.fields import Field, FieldError, Record, array, bits, flag

__all__ = [
    "COMMAND_BITS",
    "COMMAND_BYTES",
    "ENGINES",
    "HEADER_BITS",
    "HEADER_FIELDS",
    "PAYLOADS",
    "Base",
    "Begin",
    "End",
    "Engine",
    "EnginePayload",
    "Field",
    "FieldError",
    "Header",
    "LayerNorm",
    "Load",
    "MatMul",
    "Memory",
    "Mode",
    "Opcode",
    "Payload",
    "RowFactor",
    "Source",
    "Store",
    "decode",
    "decode_program",
    "encode",
    "engine_payload",
    "waits",
]


class Opcode(enum.IntEnum):
    """What a command does. Zero is illegal, so that cleared memory stops the program."""

    BEGIN = 1
    LOAD = 2
    MATMUL = 3
    LAYERNORM = 4
    STORE = 5
    END = 6


class Engine(enum.IntEnum):
    """Engines that run concurrently; the order of the ``wait_*`` fields and of the completion counters."""

    LOAD = 0  # DRAM to scratchpads
    MATMUL = 1  # array and epilogue
    NORM = 2  # LayerNorm unit
    STORE = 3  # scratchpad to DRAM


ENGINES = {
    Opcode.LOAD: Engine.LOAD,
    Opcode.MATMUL: Engine.MATMUL,
    Opcode.LAYERNORM: Engine.NORM,
    Opcode.STORE: Engine.STORE,
}


class Memory(enum.IntEnum):
    """Destinations of a LOAD (``AcceleratorConfig.row_bytes`` gives the bytes of one row)."""

    WEIGHT = 0  # stationary rows: weights, keys, values
    ACT = 1  # activations, int8 or uint8
    RESIDUAL = 2  # residual stream, int16
    PARAM = 3  # bias, multiplier and shift of output channels
    NORM = 4  # gamma and beta of LayerNorm; master 0 only
    ACTIVATION = 5  # the activation function's table; master 0 only


class Base(enum.IntEnum):
    """Region of DRAM that an offset is relative to: its base address and its size are in registers."""

    WEIGHTS = 0  # BASE_WEIGHTS, SIZE_WEIGHTS
    INPUT = 1  # BASE_INPUT, SIZE_INPUT
    OUTPUT = 2  # BASE_OUTPUT, SIZE_OUTPUT


class Source(enum.IntEnum):
    """Where a MATMUL's activations come from."""

    ACT = 0  # the activation scratchpad
    SCORE = 1  # the score scratchpad, as exponentials: P.V


class Mode(enum.IntEnum):
    """What a MATMUL's epilogue does with the requantized accumulators."""

    ACT = 0  # int8 into the activation scratchpad
    RESIDUAL = 1  # int16 into the residual scratchpad
    KEY = 2  # int8 into the weight scratchpad, a token a bank
    VALUE = 3  # int8 into the weight scratchpad, a token a byte
    SCORE = 4  # 12 bits into the score scratchpad, and the running maximum
    GATE = 5  # logits to the gate unit


class RowFactor(enum.IntEnum):
    """Per-row multiplier of a MATMUL's requantization."""

    NONE = 0  # 1
    SOFTMAX = 1  # the reciprocal of the sum of the token's exponentials
    GATE = 2  # the token's gate score, from the queue


_OPCODE_NAMES = {engine: opcode.name for opcode, engine in ENGINES.items()}
_OPCODE = Field("opcode", 0, 4, "what the command does (`Opcode`)")


@dataclass(frozen=True, kw_only=True)
class Header(Record):
    """Fields that every command begins with."""

    predicated: bool = flag("skip (but count as finished) when the queue of `expert` is empty")
    expert: int = bits(EXPERT_BITS, "whose queue `predicated` and `use_queue` look at")
    phase: int = bits(8, "phase of the model this command belongs to, for profiling only")
    reserved: int = bits(14, "0")
    waits: tuple[int, ...] = array(
        COUNT_BITS, [(f"wait_{e.name.lower()}", f"{_OPCODE_NAMES[e]}s that must have finished") for e in Engine]
    )


#: The header's fields as they lie in a command: behind the opcode, which follows from the payload.
HEADER_FIELDS = (
    _OPCODE,
    *(dataclasses.replace(field, offset=field.offset + _OPCODE.width) for field in Header.fields()),
)
HEADER_BITS = _OPCODE.width + Header.width()


class Payload(Record):
    """What follows the header; a class for each opcode."""

    opcode: ClassVar[Opcode]


class EnginePayload(Payload):
    """The payload of a command that an engine executes."""

    @property
    def engine(self) -> Engine:
        """Who executes it."""
        return ENGINES[self.opcode]


@dataclass(frozen=True, kw_only=True)
class Begin(Payload):
    """First command of a program: refuses a program that was made for other hardware."""

    opcode: ClassVar[Opcode] = Opcode.BEGIN

    isa_version: int = bits(16, "must equal the ISA_VERSION register")
    config_hash: int = bits(32, "must equal the CONFIG_HASH register")
    commands: int = bits(COUNT_BITS, "number of commands including BEGIN and END")


@dataclass(frozen=True, kw_only=True)
class Load(EnginePayload):
    """DRAM to scratchpad. Master m reads its slice of each row at base + offset + m * plane_stride.

    All lie in the region.
    """

    opcode: ClassVar[Opcode] = Opcode.LOAD

    memory: Memory = bits(4, "destination (`Memory`)", Memory)
    base: Base = bits(2, "region of DRAM (`Base`)", Base)
    offset: int = bits(32, "bytes from the region's base to the first row")
    plane_stride: int = bits(32, "bytes between two masters' slices")
    row: int = bits(ROW_BITS, "first row of the scratchpad")
    rows: int = bits(ROW_BITS, "number of rows")


@dataclass(frozen=True, kw_only=True)
class Store(EnginePayload):
    """Residual scratchpad to DRAM (master 0), inside the region OUTPUT."""

    opcode: ClassVar[Opcode] = Opcode.STORE

    base: Base = bits(2, "region of DRAM (`Base`), OUTPUT", Base)
    offset: int = bits(32, "bytes from the region's base to the first row")
    row: int = bits(ROW_BITS, "first row of the residual scratchpad")
    rows: int = bits(ROW_BITS, "number of rows")


@dataclass(frozen=True, kw_only=True)
class LayerNorm(EnginePayload):
    """LayerNorm of ``tokens`` residual rows into the activation scratchpad (docs/numerics.md, section 5)."""

    opcode: ClassVar[Opcode] = Opcode.LAYERNORM

    src_base: int = bits(ROW_BITS, "residual scratchpad row of the first token")
    src_stride: int = bits(12, "residual rows between tokens")
    src_rows: int = bits(12, "residual rows of a token: ceil(D / epilogue_lanes)")
    tokens: int = bits(TOKEN_BITS, "number of tokens")
    dst_base: int = bits(ROW_BITS, "activation scratchpad row of the first token")
    dst_stride: int = bits(12, "activation rows between tokens")
    param_base: int = bits(
        ROW_BITS, "row of the norm-parameter memory (norm_lanes x {gamma int16, pad 16, beta int32})"
    )
    dim: int = bits(DIM_BITS, "channels D")
    log2_dim: int = bits(4, "floor_log2(D)")
    inv_dim: int = bits(17, "round_half_even(2**(log2_dim + 16) / D)")
    eps: int = bits(32, "added to D*Q - S*S")
    shift: int = bits(5, "rounding shift of the outputs")


@dataclass(frozen=True, kw_only=True)
class MatMul(EnginePayload):
    """Product of ``tokens`` activation rows and ``tiles`` x lanes_n stationary weight rows, and its epilogue."""

    opcode: ClassVar[Opcode] = Opcode.MATMUL

    source: Source = bits(1, "memory of the activations (`Source`)", Source)
    unsigned: bool = flag("activations are uint8")
    use_queue: bool = flag("the token count is the length of the queue of header.expert")
    gather: bool = flag("source row = src_base + token number in the queue * src_stride")
    scatter: bool = flag("destination token = token number in the queue")
    src_base: int = bits(ROW_BITS, "source row of the first token")
    src_stride: int = bits(12, "source rows between tokens")
    k_steps: int = bits(8, "steps of a tile: ceil(K / lanes_k)")
    weight_base: int = bits(ROW_BITS, "weight row of (tile, step) = weight_base + tile * k_steps + step")
    nibbles: bool = flag(
        "int4 weights, row = weight_base + tile * ceil(k_steps / 2) + step // 2: odd steps in high nibbles"
    )
    tiles: int = bits(10, "tiles of lanes_n output channels")
    tokens: int = bits(TOKEN_BITS, "number of tokens, unless `use_queue`")
    min_gap: int = bits(8, "cycles between two tiles' starts, at least the epilogue's need")
    mode: Mode = bits(3, "what becomes of the results (`Mode`)", Mode)
    channels: int = bits(13, "valid output channels over all tiles")
    dst_base: int = bits(ROW_BITS, "destination row of the first token (KEY, VALUE: of its first channel)")
    dst_stride: int = bits(12, "destination rows between tokens")
    dst_channel: int = bits(13, "first output channel's position in the destination row")
    param_base: int = bits(ROW_BITS, "parameter row of the first epilogue_lanes channels")
    param_uniform: bool = flag("all channels use the parameters of row param_base")
    row_factor: RowFactor = bits(2, "a token's own multiplier (`RowFactor`)", RowFactor)
    activate: bool = flag("requantize to 12 bits, then the activation function")
    accumulate: bool = flag("RESIDUAL: add to the row instead of overwriting it")
    head_dim: int = bits(10, "KEY, VALUE: channels of one head (padded)")
    head_stride: int = bits(ROW_BITS, "KEY, VALUE: weight rows between heads")
    tile_stride: int = bits(ROW_BITS, "KEY: weight rows between token tiles; VALUE: between channel tiles of a head")
    token_rem: int = bits(8, "KEY: first token % lanes_n; VALUE: first token % lanes_k")
    keys: int = bits(TOKEN_BITS, "SCORE source and mode: number of valid keys")
    score_shift: int = bits(2, "SCORE source: docs/numerics.md, section 6")
    max_base: int = bits(
        TOKEN_BITS, "SCORE source and mode: first token's entry of the row-maximum memory; GATE: first token number"
    )
    num_experts: int = bits(EXPERT_COUNT_BITS, "GATE: experts of the layer")
    top_k: int = bits(TOP_K_BITS, "GATE: experts a token")
    gate_first: bool = flag("GATE: empty all queues before the first token")


@dataclass(frozen=True, kw_only=True)
class End(Payload):
    """Last command: the program has ended when every engine has finished what was dealt to it."""

    opcode: ClassVar[Opcode] = Opcode.END


PAYLOADS: dict[Opcode, type[Payload]] = {
    payload.opcode: payload for payload in (Begin, Load, MatMul, LayerNorm, Store, End)
}


def engine_payload(engine: Engine) -> type[Payload]:
    """The payload of the commands that an engine executes."""
    return next(payload for opcode, payload in PAYLOADS.items() if ENGINES.get(opcode) == engine)


def waits(counts: Mapping[Engine, int]) -> tuple[int, ...]:
    """``Header.waits`` of the engines that are waited for."""
    return tuple(counts.get(engine, 0) for engine in Engine)


def encode(payload: Payload, header: Header | None = None) -> bytes:
    """A command's bytes."""
    word = payload.opcode | (header or Header()).pack() << _OPCODE.width | payload.pack() << HEADER_BITS
    return word.to_bytes(COMMAND_BYTES, "little")


def decode(command: bytes) -> tuple[Header, Payload]:
    """Header and payload of a command.

    Raises:
        FieldError: the length is wrong, the opcode is illegal, or a field has a value without meaning
    """
    if len(command) != COMMAND_BYTES:
        raise FieldError(f"a command must have {COMMAND_BYTES} bytes, not {len(command)}")
    word = int.from_bytes(command, "little")
    number = word & ((1 << _OPCODE.width) - 1)
    try:
        payload = PAYLOADS[Opcode(number)]
    except ValueError:
        raise FieldError(f"illegal opcode {number}") from None
    header = Header.unpack(word >> _OPCODE.width & ((1 << Header.width()) - 1))
    return header, payload.unpack(word >> HEADER_BITS)


def decode_program(program: bytes) -> Iterator[tuple[Header, Payload]]:
    """Every command of a program.

    Raises:
        FieldError: the length is wrong, or a command has no meaning; the message has its number
    """
    if len(program) % COMMAND_BYTES:
        raise FieldError(f"a program must be a multiple of {COMMAND_BYTES} bytes, not {len(program)}")
    for place in range(0, len(program), COMMAND_BYTES):
        try:
            yield decode(program[place : place + COMMAND_BYTES])
        except FieldError as error:
            raise FieldError(f"command {place // COMMAND_BYTES}: {error}") from None


assert ISA_VERSION < 1 << COUNT_BITS
assert all(HEADER_BITS + payload.width() <= COMMAND_BITS for payload in PAYLOADS.values())
