"""Payloads of the streams between the bus side, the engines and the scratchpads."""

from amaranth.lib import data

from edgemoe_hw.bus.axi import ADDRESS_BITS
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = [
    "BASES",
    "COMMAND",
    "ERROR_REPORT",
    "READ_REQUEST",
    "beat_layout",
    "memory_depths",
    "queued_layout",
    "read_response",
    "slice_beats",
]

# A fetched command on its way to an engine's queue; `index` is its number in the program.
COMMAND = data.StructLayout({"word": isa.COMMAND_BITS, "index": 16})

# One cycle of `valid` stops the program; `code` is a regs.ErrorCode.
ERROR_REPORT = data.StructLayout({"valid": 1, "code": 8, "index": 16})

# One burst: byte address (aligned to a beat) and number of beats - 1; must not cross 4 KiB.
READ_REQUEST = data.StructLayout({"addr": ADDRESS_BITS, "len": 8})

# The base-address registers, by isa.Base.
BASES = data.ArrayLayout(ADDRESS_BITS, len(isa.Base))


def read_response(config: AcceleratorConfig) -> data.StructLayout:
    """One beat of a read burst."""
    return data.StructLayout({"data": 8 * config.axi_bytes, "error": 1})


def queued_layout(payload) -> data.StructLayout:
    """A command that has left an engine's queue, its waits over.

    ``skip``: the engine must count the command as finished and do nothing else. ``tokens``: length of the expert queue
    that the header names.
    """
    return data.StructLayout({"header": isa.Header, "payload": payload, "index": 16, "skip": 1, "tokens": 11})


def beat_layout(config: AcceleratorConfig) -> data.StructLayout:
    """One beat of a LOAD: ``data`` is part ``beat`` of the master's slice of row ``row`` of ``memory``."""
    return data.StructLayout({"memory": 4, "row": 16, "beat": 8, "data": 8 * config.axi_bytes})


def slice_beats(config: AcceleratorConfig) -> dict[isa.Memory, int]:
    """Beats of one master's slice of a row, by memory."""
    beats = {
        memory: config.row_bytes[memory.name] // config.load_masters(memory.name) // config.axi_bytes
        for memory in isa.Memory
    }
    for memory, count in beats.items():
        if not 1 <= count <= 256:
            raise ValueError(f"a master's slice of a {memory.name} row must have 1 to 256 beats, not {count}")
    return beats


def memory_depths(config: AcceleratorConfig) -> dict[isa.Memory, int]:
    """Rows of every memory that a LOAD can write."""
    norm_rows = -(-config.max_dim // config.epilogue_lanes) * config.epilogue_lanes // config.norm_lanes
    return {
        isa.Memory.WEIGHT: config.weight_depth,
        isa.Memory.ACT: config.act_depth,
        isa.Memory.RESIDUAL: config.residual_depth,
        isa.Memory.PARAM: config.param_depth,
        isa.Memory.NORM: 2 * norm_rows,  # two sets: one in use, one loading
        isa.Memory.GELU: 512 // config.axi_bytes,
    }
