"""What a program must keep to, whoever wrote it: checked for all of its commands when a bundle is loaded.

The accelerator trusts its programs: a STORE writes where it says, a wait for what never comes waits forever. So every
command's fields are held against the configuration, the model and the sizes of the buffers. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgemoe.bundle.fields import Columns, Ints, ProgramError, ProgramFields
from edgemoe.bundle.matmul import check_matmuls, check_tokens
from edgemoe.bundle.parts import Joined
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.isa import COMMAND_BYTES, ENGINES, Base, Engine, Memory, Mode, Opcode, RowFactor
from edgemoe_hw.spec.memories import memory_depths
from edgemoe_models.arithmetic.tables import norm_constants
from edgemoe_models.config import ModelConfig

__all__ = ["Checked", "Limits", "ProgramError", "check_program"]

_MOST_COMMANDS = (1 << 16) - 1  # what BEGIN and the counters can hold


@dataclass(frozen=True)
class Limits:
    """What a program may touch.

    Attributes:
        config: the accelerator
        model: whose tokens and experts commands number
        data_bytes, input_bytes, output_bytes: at the bases WEIGHTS, INPUT and OUTPUT
        phases: how many phases commands may name
        joined: the tasks and images that the program is of
    """

    config: AcceleratorConfig
    model: ModelConfig
    data_bytes: int
    input_bytes: int
    output_bytes: int
    phases: int
    joined: Joined

    @property
    def tokens(self) -> int:
        """Of all token sequences that are computed side by side: without gates, an image's tasks share one."""
        model = self.model
        forks = any(model.is_moe(block) for block in range(model.depth))
        return self.joined.images * (len(self.joined.tasks) if forks else 1) * model.num_tokens


@dataclass(frozen=True)
class Checked:
    """What else is to be known of a program that keeps to its limits.

    Attributes:
        fields: its commands
        counts: of each engine, how many of its commands come before each command, int64 [engines, commands]
        load_bytes: of all LOADs
        certain_bytes: of each phase's LOADs that depend on no expert
        matmuls: MATMULs up to the last one of each phase
        stored: parts of the output that the head always writes: bytes [begin, end), int64 [stores, 2]
    """

    fields: ProgramFields
    counts: Ints
    load_bytes: int
    certain_bytes: tuple[int, ...]
    matmuls: tuple[int, ...]
    stored: Ints


def check_program(program: bytes, limits: Limits) -> Checked:
    """Hold every command of a program against what it may do.

    Raises:
        ProgramError: names the first command that breaks a rule, and the rule
    """
    count, rest = divmod(len(program), COMMAND_BYTES)
    if rest or not 2 <= count <= _MOST_COMMANDS:
        raise ProgramError(f"it has {len(program)} bytes, which are not 2 to {_MOST_COMMANDS} commands of 64")
    fields = ProgramFields(program)
    _check_frame(fields, limits)
    counts = _check_waits(fields)
    matmuls = fields.of(Opcode.MATMUL)
    _check_headers(fields, limits, matmuls)
    loads = fields.of(Opcode.LOAD)
    sizes = _check_loads(loads, limits)
    certain = [sizes[(loads.header["phase"] == n) & (loads.header["predicated"] == 0)] for n in range(limits.phases)]
    stores = fields.of(Opcode.STORE)
    stored = _check_stores(stores, limits)
    _check_copies(loads, stores, limits)
    _check_norms(fields.of(Opcode.LAYERNORM), limits)
    check_matmuls(matmuls, limits.config, limits.model, limits.tokens)
    ends = [int(np.flatnonzero(matmuls.header["phase"] == phase).max(initial=-1)) + 1 for phase in range(limits.phases)]
    certain_bytes = tuple(int(size.sum()) for size in certain)
    return Checked(fields, counts, int(sizes.sum()), certain_bytes, tuple(ends), stored)


def _check_frame(fields: ProgramFields, limits: Limits) -> None:
    """BEGIN first, END last, neither elsewhere, no opcode or bit without meaning, and the hardware that is meant."""
    opcodes = fields.opcodes
    illegal = (opcodes < min(Opcode)) | (opcodes > max(Opcode))
    if illegal.any():
        number = int(np.argmax(illegal))
        raise ProgramError(f"command {number} has the illegal opcode {opcodes[number]}")
    for opcode, place in ((Opcode.BEGIN, 0), (Opcode.END, fields.count - 1)):
        found = np.flatnonzero(opcodes == opcode)
        if found.tolist() != [place]:
            wrong = next((int(number) for number in found if number != place), place)
            raise ProgramError(
                f"command {wrong} is {Opcode(opcodes[wrong]).name}; {opcode.name} is command {place} alone"
            )
    unused = fields.unused_bits() | (fields.header("reserved") != 0)
    if unused.any():
        number = int(np.argmax(unused))
        raise ProgramError(f"command {number} ({Opcode(opcodes[number]).name}) has bits set that no field names")
    begin, config = fields.of(Opcode.BEGIN), limits.config
    wanted = {"isa_version": ISA_VERSION, "config_hash": config.hash32, "commands": fields.count}
    for name, value in wanted.items():
        found_value = int(begin[name][0])
        if found_value != value:
            raise ProgramError(f"command 0 (BEGIN) has {name} {found_value:#x}, but the bundle has {value:#x}")


def _check_waits(fields: ProgramFields) -> Ints:
    """No command waits for one that comes after it: then the engines' queues cannot block each other."""
    engines = np.array([ENGINES.get(Opcode(number), -1) if number else -1 for number in range(max(Opcode) + 1)])
    of_command = engines[fields.opcodes]
    before = np.zeros((len(Engine), fields.count), np.int64)
    for engine in Engine:
        before[engine, 1:] = np.cumsum(of_command == engine)[:-1]
        waits = fields.header(f"wait_{engine.name.lower()}")
        if (late := waits > before[engine]).any():
            number = int(np.argmax(late))
            raise ProgramError(
                f"command {number} ({Opcode(fields.opcodes[number]).name}) waits for {waits[number]} commands of "
                f"engine {engine.name}, but {before[engine, number]} come before it: it would never start"
            )
        if waits[-1] != before[engine, -1]:
            raise ProgramError(
                f"command {fields.count - 1} (END) waits for {waits[-1]} commands of engine {engine.name}, not for all "
                f"{before[engine, -1]}"
            )
    return before


def _check_headers(fields: ProgramFields, limits: Limits, matmuls: Columns) -> None:
    """Phases and experts exist, and a queue is looked at only where a GATE has filled it."""
    experts = limits.model.num_experts
    for opcode in (Opcode.BEGIN, Opcode.END):
        frame = fields.of(opcode)
        plain = frame.header["predicated"] + frame.header["expert"] + frame.header["phase"] == 0
        frame.must(plain, "has a phase or an expert")
    gates = matmuls.numbers[matmuls["mode"] == Mode.GATE]
    first = int(gates[0]) if len(gates) else fields.count
    for opcode in ENGINES:
        c = matmuls if opcode == Opcode.MATMUL else fields.of(opcode)
        phase, expert = c.header["phase"], c.header["expert"]
        c.must(phase < limits.phases, "is of phase {phase} of {phases}", phase=phase, phases=limits.phases)
        queued = c.header["predicated"] != 0
        if opcode == Opcode.MATMUL:
            queued = queued | (c["use_queue"] != 0) | (c["row_factor"] == RowFactor.GATE)
        c.must(queued | (expert == 0), "names expert {expert}, but looks at no queue", expert=expert)
        known = ~queued | (expert < experts)
        c.must(known, "is for expert {expert}, but the model has {experts}", expert=expert, experts=experts)
        c.must(~queued | (c.numbers > first), "looks at an expert's queue before any GATE")


def _check_loads(c: Columns, limits: Limits) -> Ints:
    """Every plane that a LOAD reads lies in its buffer, and its rows in their memory; returns the bytes of each."""
    config, memory, rows, offset = limits.config, c["memory"], c["rows"], c["offset"]
    c.must(memory < len(Memory), "loads memory {memory}, which there is not", memory=memory)
    readable = Base.OUTPUT if len(limits.joined.tasks) > 1 else Base.INPUT  # what a program has stored for itself
    c.must(c["base"] <= readable, "reads at base {base}, where there is nothing to read", base=c["base"])
    masters = np.array([config.load_masters(kind.name) for kind in Memory])[memory]
    row_bytes = np.array([config.row_bytes[kind.name] for kind in Memory])[memory]
    depths = np.array([memory_depths(config)[kind] for kind in Memory])
    step = config.axi_bytes
    aligned = (offset % step == 0) & ((c["plane_stride"] % step == 0) | (masters == 1))
    c.must(aligned, "reads planes at {offset}, not all at multiples of {step}", offset=offset, step=step)
    end = offset + (masters - 1) * c["plane_stride"] + rows * (row_bytes // masters)
    for base, size, name in (
        (Base.WEIGHTS, limits.data_bytes, "the weights, which have"),
        (Base.INPUT, limits.input_bytes, "the input, which has"),
        (Base.OUTPUT, limits.output_bytes, "the output, which has"),
    ):
        good = (c["base"] != base) | (end <= size) | (rows == 0)
        c.must(good, "reads bytes {begin} to {end} of {name} {size}", begin=offset, end=end, name=name, size=size)
    for kind in Memory:
        c.must_fit("writes", kind.name, int(depths[kind]), c["row"], c["row"] + rows, memory == kind)
    sizes: Ints = rows * row_bytes
    return sizes


def _check_copies(loads: Columns, stores: Columns, limits: Limits) -> None:
    """A LOAD from the output reads what STOREs have written there before, whatever the image, and waits for them: the
    rest of that buffer is a former program's."""
    step, row_bytes = limits.config.axi_bytes, 2 * limits.config.epilogue_lanes
    never = len(stores) + 1
    needed = np.full(limits.output_bytes // step + 2, never)  # STOREs that must have finished, by piece of the output
    for number in range(len(stores) - 1, -1, -1):
        if not stores.header["predicated"][number]:
            begin = int(stores["offset"][number])
            end = begin + int(stores["rows"][number]) * row_bytes
            needed[begin // step : end // step] = number + 1
    memory = loads["memory"]
    masters = np.array([limits.config.load_masters(kind.name) for kind in Memory])[memory]
    slices = loads["rows"] * np.array([limits.config.row_bytes[kind.name] for kind in Memory])[memory] // masters
    for master in range(int(masters.max(initial=0))):
        start = loads["offset"] + master * loads["plane_stride"]
        reads = (loads["base"] == Base.OUTPUT) & (master < masters) & (slices > 0)
        first = np.where(reads, start // step, 0)
        behind = np.where(reads, -(-(start + slices) // step), 1)
        pairs = np.stack([first, behind], 1).ravel().astype(np.intp)  # of 32 bits on a Zynq-7000: reduceat insists
        latest = np.maximum.reduceat(needed, pairs)[::2] if len(first) else first
        text = "reads bytes {begin} to {end} of the output, which no STORE that it waits for has written"
        good = ~reads | (latest <= loads.header["wait_store"])
        loads.must(good, text, begin=start, end=start + slices)


def _check_stores(c: Columns, limits: Limits) -> Ints:
    """Every STORE writes into the output, from rows that exist; returns what the head writes without a condition."""
    step, size = limits.config.axi_bytes, limits.output_bytes
    begin, end = c["offset"], c["offset"] + c["rows"] * 2 * limits.config.epilogue_lanes
    c.must(c["base"] == Base.OUTPUT, "writes at base {base}, which is not the output", base=c["base"])
    c.must(begin % step == 0, "writes at {begin}, which is no multiple of {step}", begin=begin, step=step)
    c.must(
        end <= size, "writes bytes {begin} to {end} of the output, which has {size}", begin=begin, end=end, size=size
    )
    c.must_fit("reads", "RESIDUAL", limits.config.residual_depth, c["row"], c["row"] + c["rows"])
    always = np.flatnonzero((c.header["predicated"] == 0) & (c.header["phase"] == limits.phases - 1))
    return np.stack([begin[always], end[always]], 1)


def _check_norms(c: Columns, limits: Limits) -> None:
    config, dim, tokens = limits.config, limits.model.dim, c["tokens"]
    log2_dim, inv_dim = norm_constants(dim)
    rows = -(-dim // config.epilogue_lanes)
    for name, value in {"dim": dim, "src_rows": rows, "log2_dim": log2_dim, "inv_dim": inv_dim}.items():
        c.must(
            c[name] == value, "has {name} {found}, but the model needs {value}", name=name, found=c[name], value=value
        )
    check_tokens(c, tokens, limits.model.num_tokens)
    last = np.maximum(tokens - 1, 0)
    source = c["src_base"] + last * c["src_stride"] + c["src_rows"]
    target = c["dst_base"] + last * c["dst_stride"] + -(-dim // config.lanes_k)
    params = c["param_base"] + -(-dim // config.norm_lanes)
    c.must_fit("reads", "RESIDUAL", config.residual_depth, c["src_base"], source)
    c.must_fit("writes", "ACT", config.act_depth, c["dst_base"], target)
    c.must_fit("reads", "NORM", memory_depths(config)[Memory.NORM], c["param_base"], params)
