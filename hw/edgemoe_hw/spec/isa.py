"""Opcodes and command layouts: the single declaration that RTL, compiler, simulators and documentation share.

A command has 512 bits: a header that every engine understands and a payload that depends on the opcode. Engines run
concurrently; each finishes its commands in program order and counts them. ``wait_<engine>`` is the number of commands
that engine must have finished (since BEGIN, modulo 2**16, programs are shorter) before this command may start.
"""

import enum

from amaranth.lib import data

from edgemoe_hw.spec.config import ISA_VERSION

__all__ = [
    "COMMAND_BITS",
    "COMMAND_BYTES",
    "ENGINES",
    "Base",
    "Begin",
    "Engine",
    "Header",
    "LayerNorm",
    "Load",
    "MatMul",
    "Memory",
    "Mode",
    "Opcode",
    "PAYLOADS",
    "RowFactor",
    "Source",
    "Store",
    "decode",
    "encode",
]

COMMAND_BITS = 512
COMMAND_BYTES = COMMAND_BITS // 8


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
    GELU = 5  # the GELU table; master 0 only


class Base(enum.IntEnum):
    """Base-address register that a DRAM offset is relative to."""

    WEIGHTS = 0  # BASE_WEIGHTS
    INPUT = 1  # BASE_INPUT
    OUTPUT = 2  # BASE_OUTPUT


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


class Header(data.Struct):
    """Fields that every command begins with."""

    opcode: 4  # what the command does (`Opcode`)
    predicated: 1  # skip (but count as finished) when the queue of `expert` is empty
    expert: 5  # whose queue `predicated` and `use_queue` look at
    phase: 8  # phase of the model this command belongs to, for profiling only
    reserved: 14  # 0
    wait_load: 16  # LOADs that must have finished
    wait_matmul: 16  # MATMULs that must have finished
    wait_norm: 16  # LAYERNORMs that must have finished
    wait_store: 16  # STOREs that must have finished


class Begin(data.Struct):
    """First command of a program: refuses a program that was made for other hardware."""

    isa_version: 16  # must equal the ISA_VERSION register
    config_hash: 32  # must equal the CONFIG_HASH register
    commands: 16  # number of commands including BEGIN and END


class Load(data.Struct):
    """DRAM to scratchpad. Master m reads its slice of each row at base + offset + m * plane_stride."""

    memory: 4  # destination (`Memory`)
    base: 2  # DRAM base register (`Base`)
    offset: 32  # bytes from the base to the first row
    plane_stride: 32  # bytes between two masters' slices
    row: 16  # first row of the scratchpad
    rows: 16  # number of rows


class Store(data.Struct):
    """Residual scratchpad to DRAM (master 0)."""

    base: 2  # DRAM base register (`Base`)
    offset: 32  # bytes from the base to the first row
    row: 16  # first row of the residual scratchpad
    rows: 16  # number of rows


class LayerNorm(data.Struct):
    """LayerNorm of ``tokens`` residual rows into the activation scratchpad (docs/numerics.md, section 5)."""

    src_base: 16  # residual scratchpad row of the first token
    src_stride: 12  # residual rows between tokens
    src_rows: 12  # residual rows of a token: ceil(D / epilogue_lanes)
    tokens: 11  # number of tokens
    dst_base: 16  # activation scratchpad row of the first token
    dst_stride: 12  # activation rows between tokens
    param_base: 16  # row of the norm-parameter memory (norm_lanes x {gamma int16, pad 16, beta int32})
    dim: 11  # channels D
    log2_dim: 4  # floor_log2(D)
    inv_dim: 17  # round_half_even(2**(log2_dim + 16) / D)
    eps: 32  # added to D*Q - S*S
    shift: 5  # rounding shift of the outputs


class MatMul(data.Struct):
    """Product of ``tokens`` activation rows and ``tiles`` x lanes_n stationary weight rows, and its epilogue."""

    source: 1  # memory of the activations (`Source`)
    unsigned: 1  # activations are uint8
    use_queue: 1  # the token count is the length of the queue of header.expert
    gather: 1  # source row = src_base + token number in the queue * src_stride
    scatter: 1  # destination token = token number in the queue
    src_base: 16  # source row of the first token
    src_stride: 12  # source rows between tokens
    k_steps: 8  # steps of a tile: ceil(K / lanes_k)
    weight_base: 16  # weight row of (tile, step) = weight_base + tile * k_steps + step
    nibbles: 1  # int4 weights, row = weight_base + tile * ceil(k_steps / 2) + step // 2: odd steps in high nibbles
    tiles: 10  # tiles of lanes_n output channels
    tokens: 11  # number of tokens, unless `use_queue`
    min_gap: 8  # cycles between two tiles' starts, at least the epilogue's need
    mode: 3  # what becomes of the results (`Mode`)
    channels: 13  # valid output channels over all tiles
    dst_base: 16  # destination row of the first token
    dst_stride: 12  # destination rows between tokens
    dst_channel: 13  # first output channel's position in the destination row
    param_base: 16  # parameter row of the first epilogue_lanes channels
    param_uniform: 1  # all channels use the parameters of row param_base
    row_factor: 2  # a token's own multiplier (`RowFactor`)
    gelu: 1  # requantize to 11 bits, then GELU
    gelu_shift: 2  # docs/numerics.md, section 4
    accumulate: 1  # RESIDUAL: add to the row instead of overwriting it
    head_dim: 10  # KEY, VALUE: channels of one head (padded)
    head_stride: 16  # KEY, VALUE: weight rows between heads
    tile_stride: 16  # KEY: weight rows between token tiles; VALUE: between channel tiles of a head
    token_quot: 8  # KEY: first token // lanes_n; VALUE: first token // lanes_k
    token_rem: 8  # KEY: first token % lanes_n; VALUE: first token % lanes_k
    keys: 11  # SCORE source and mode: number of valid keys
    score_shift: 2  # SCORE source: docs/numerics.md, section 6
    max_base: 11  # SCORE source and mode: first token's entry of the row-maximum memory; GATE: first token number
    num_experts: 6  # GATE: experts of the layer
    top_k: 3  # GATE: experts a token
    gate_first: 1  # GATE: empty all queues before the first token


PAYLOADS: dict[Opcode, type[data.Struct] | None] = {
    Opcode.BEGIN: Begin,
    Opcode.LOAD: Load,
    Opcode.MATMUL: MatMul,
    Opcode.LAYERNORM: LayerNorm,
    Opcode.STORE: Store,
    Opcode.END: None,
}
HEADER_BITS = Header.as_shape().size  # type: ignore[attr-defined]


def _layout(struct: type[data.Struct]) -> list[tuple[str, int, int]]:
    layout = struct.as_shape()  # type: ignore[attr-defined]
    return [(name, field.offset, field.width) for name, field in layout]


_LAYOUTS = {struct: _layout(struct) for struct in (Header, Begin, Load, Store, LayerNorm, MatMul)}


def _pack(struct: type[data.Struct], values: dict[str, int]) -> int:
    word = 0
    known = set()
    for name, offset, width in _LAYOUTS[struct]:
        known.add(name)
        value = int(values.get(name, 0))
        if not 0 <= value < 1 << width:
            raise ValueError(f"{struct.__name__}.{name} must be between 0 and {(1 << width) - 1}, not {value}")
        word |= value << offset
    unknown = set(values) - known
    if unknown:
        raise ValueError(f"{struct.__name__} has no field {', '.join(sorted(unknown))}")
    return word


def _unpack(struct: type[data.Struct], word: int) -> dict[str, int]:
    return {name: word >> offset & ((1 << width) - 1) for name, offset, width in _LAYOUTS[struct]}


def encode(opcode: Opcode, header: dict[str, int] | None = None, payload: dict[str, int] | None = None) -> bytes:
    """Encode one command.

    Raises:
        ValueError: a field is unknown or its value does not fit
    """
    word = _pack(Header, {"opcode": int(opcode), **(header or {})})
    struct = PAYLOADS[opcode]
    if struct is not None:
        word |= _pack(struct, payload or {}) << HEADER_BITS
    elif payload:
        raise ValueError(f"{opcode.name} has no payload")
    return word.to_bytes(COMMAND_BYTES, "little")


def decode(command: bytes) -> tuple[Opcode, dict[str, int], dict[str, int]]:
    """Decode one command into opcode, header fields and payload fields.

    Raises:
        ValueError: the length is wrong or the opcode is illegal
    """
    if len(command) != COMMAND_BYTES:
        raise ValueError(f"a command must have {COMMAND_BYTES} bytes, not {len(command)}")
    word = int.from_bytes(command, "little")
    header = _unpack(Header, word)
    try:
        opcode = Opcode(header["opcode"])
    except ValueError:
        raise ValueError(f"illegal opcode {header['opcode']}") from None
    struct = PAYLOADS[opcode]
    return opcode, header, _unpack(struct, word >> HEADER_BITS) if struct is not None else {}


assert ISA_VERSION < 1 << 16
for _struct in PAYLOADS.values():
    assert _struct is None or HEADER_BITS + _struct.as_shape().size <= COMMAND_BITS  # type: ignore[attr-defined]
