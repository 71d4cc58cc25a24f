"""What travels between the bus side, the engines and the scratchpads: payloads of streams, and the engines' status."""

from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from edgemoe_hw.layouts import Header
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COMMAND_BITS, COUNT_BITS, ROW_BITS, SIZE_BITS, TOKEN_BITS

__all__ = [
    "ArrayStatus",
    "COMMAND",
    "ERROR_REPORT",
    "EngineStatus",
    "READ_REQUEST",
    "REGIONS",
    "beat_layout",
    "queued_layout",
    "read_response",
]

# A fetched command on its way to an engine's queue; `index` is its number in the program.
COMMAND = data.StructLayout({"word": COMMAND_BITS, "index": COUNT_BITS})

# One cycle of `valid` stops the program; `code` is a regs.ErrorCode.
ERROR_REPORT = data.StructLayout({"valid": 1, "code": 8, "index": COUNT_BITS})

# One burst: byte address (aligned to a beat) and number of beats - 1; must not cross 4 KiB.
READ_REQUEST = data.StructLayout({"addr": ADDRESS_BITS, "len": 8})

# The regions of DRAM, by isa.Base: byte address and bytes.
REGIONS = data.ArrayLayout(data.StructLayout({"base": ADDRESS_BITS, "size": SIZE_BITS}), len(isa.Base))


class ArrayStatus(wiring.Signature):
    """What happened to the array in a cycle: exactly one of these.

    Members:
        busy: it took operands
        stall_epilogue: it waited for the vector unit (``min_gap``)
        stall_token: it waited for an entry of an expert queue
        idle: no MATMUL is being issued
    """

    def __init__(self) -> None:
        super().__init__({"busy": Out(1), "stall_epilogue": Out(1), "stall_token": Out(1), "idle": Out(1)})


class EngineStatus(wiring.Signature):
    """What the engines of the compute side tell the control plane.

    Members:
        done: a bit an engine (``isa.Engine``): it has finished the oldest of its commands
        array: see ``ArrayStatus``
        expert_counts: length of each expert queue
        gate_clear: these are 0 from the next cycle on, because a MoE block's gate begins
        error: stops the program
    """

    def __init__(self, config: AcceleratorConfig):
        super().__init__(
            {
                "done": Out(len(isa.Engine)),
                "array": Out(ArrayStatus()),
                "expert_counts": Out(TOKEN_BITS).array(config.max_experts),
                "gate_clear": Out(1),
                "error": Out(ERROR_REPORT),
            }
        )


def read_response(config: AcceleratorConfig) -> data.StructLayout:
    """One beat of a read burst."""
    return data.StructLayout({"data": 8 * config.axi_bytes, "error": 1})


def queued_layout(payload: data.StructLayout) -> data.StructLayout:
    """A command that has left an engine's queue, its waits over.

    ``tokens``: length of the expert queue that the header names.
    """
    return data.StructLayout({"header": Header, "payload": payload, "index": COUNT_BITS, "tokens": TOKEN_BITS})


def beat_layout(config: AcceleratorConfig) -> data.StructLayout:
    """One beat of a LOAD: ``data`` is part ``beat`` of the master's slice of row ``row`` of ``memory``."""
    return data.StructLayout({"memory": 4, "row": ROW_BITS, "beat": 8, "data": 8 * config.axi_bytes})
