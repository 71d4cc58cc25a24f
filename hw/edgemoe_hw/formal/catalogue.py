"""All checks by name."""

from collections.abc import Callable
from functools import partial

from edgemoe_hw.bus.bursts import AXI3_BEATS
from edgemoe_hw.formal.axi3 import axi3_slave_check
from edgemoe_hw.formal.bursts import splitter_check
from edgemoe_hw.formal.check import Check
from edgemoe_hw.formal.command_queue import command_queue_check
from edgemoe_hw.formal.dma import dma_read_check, dma_write_check, sequencer_check
from edgemoe_hw.formal.ports import read_port_check
from edgemoe_hw.formal.queues import fifo_check, slice_check
from edgemoe_hw.formal.registers import register_file_check
from edgemoe_hw.formal.supervisor import supervisor_check
from edgemoe_hw.formal.write_port import write_port_check
from edgemoe_hw.spec.config import PRESETS

__all__ = ["CHECKS"]

_NARROW, _WIDE = PRESETS["pynq-z2"], PRESETS["zcu102"]

CHECKS: dict[str, Callable[[], Check]] = {
    **{f"fifo-{depth}": partial(fifo_check, depth) for depth in (2, 8, 32)},
    "slice": slice_check,
    "splitter-8": partial(splitter_check, _NARROW),
    "splitter-16": partial(splitter_check, _WIDE),
    "splitter-axi3": partial(splitter_check, _NARROW, AXI3_BEATS),
    "slave-axi3": axi3_slave_check,
    "read-port-8": partial(read_port_check, _NARROW),
    "read-port-16": partial(read_port_check, _WIDE),
    "write-port-8": partial(write_port_check, _NARROW),
    "write-port-16": partial(write_port_check, _WIDE),
    "load": partial(dma_read_check, _NARROW),
    "store": partial(dma_write_check, _NARROW),
    "sequencer": partial(sequencer_check, _NARROW),
    "sequencer-axi3": partial(sequencer_check, _NARROW, AXI3_BEATS),
    "registers": register_file_check,
    "command-queue": command_queue_check,
    "supervisor": supervisor_check,
}
