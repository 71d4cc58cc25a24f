"""Signatures of what units share: memories, expert queues, gate logits. Seen by the side that asks or writes."""

from amaranth import signed
from amaranth.hdl import ShapeLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import (
    EXPERT_BITS,
    EXPERT_COUNT_BITS,
    ROW_BITS,
    ROW_FACTOR_BITS,
    TOKEN_BITS,
    TOP_K_BITS,
)

__all__ = [
    "GateLogits",
    "LoadPort",
    "MemoryRead",
    "MemoryWrite",
    "QueueRead",
    "SharedRead",
    "SharedWrite",
    "StationaryWrite",
]


class MemoryRead(wiring.Signature):
    """A read port of one reader.

    Members:
        row: address, ``row_bits`` wide
        data: that row's, as many cycles later as ``spec.timing`` says of the memory (ACT_READ, ...)
    """

    def __init__(self, shape: ShapeLike, row_bits: int = ROW_BITS):
        super().__init__({"row": Out(row_bits), "data": In(shape)})


class SharedRead(wiring.Signature):
    """A read port that several readers share.

    Members:
        valid, ready: ``row`` is read in a cycle with both
        row: address
        data: that row's, as many cycles later as ``spec.timing`` says of the memory and in that cycle only
    """

    def __init__(self, shape: ShapeLike):
        super().__init__({"valid": Out(1), "ready": In(1), "row": Out(ROW_BITS), "data": In(shape)})


class MemoryWrite(wiring.Signature):
    """A write port of one writer, never refused.

    Members:
        valid: ``data`` is written at the end of this cycle
        row: address, ``row_bits`` wide
        mask: which of ``masked`` equal parts of ``data`` are written; absent if there is but one part
        data: the row's content
    """

    def __init__(self, shape: ShapeLike, masked: int = 1, row_bits: int = ROW_BITS):
        mask = {"mask": Out(masked)} if masked > 1 else {}
        super().__init__({"valid": Out(1), "row": Out(row_bits), **mask, "data": Out(shape)})


class SharedWrite(wiring.Signature):
    """A write port that several writers share.

    Members:
        valid, ready: ``data`` is written at the end of a cycle with both
        row: address
        mask: which of ``masked`` equal parts of ``data`` are written
        data: the row's content
    """

    def __init__(self, shape: ShapeLike, masked: int):
        super().__init__(
            {"valid": Out(1), "ready": In(1), "row": Out(ROW_BITS), "mask": Out(masked), "data": Out(shape)}
        )


class StationaryWrite(wiring.Signature):
    """The epilogue's write port of the weight scratchpad: a group of a key or of a value, never refused.

    Members:
        valid, row: as of ``MemoryWrite``
        banks, bytes: which of them are written
        is_value: the group is spread over neighbouring banks, a byte in each, instead of over the bytes of one bank
        data: epilogue_lanes x int8
    """

    def __init__(self, config: AcceleratorConfig):
        super().__init__(
            {
                "valid": Out(1),
                "row": Out(ROW_BITS),
                "banks": Out(config.lanes_n),
                "bytes": Out(config.lanes_k),
                "is_value": Out(1),
                "data": Out(data.ArrayLayout(signed(8), config.epilogue_lanes)),
            }
        )


class LoadPort(wiring.Signature):
    """Write port of a loader: one beat of one master's slice of a row.

    Members:
        valid, ready: the beat is written in a cycle with both
        row: memory row
        beat: position of the beat within the slice
        data: axi_bytes bytes
    """

    def __init__(self, axi_bytes: int):
        super().__init__(
            {"valid": Out(1), "ready": In(1), "row": Out(ROW_BITS), "beat": Out(8), "data": Out(axi_bytes * 8)}
        )


class QueueRead(wiring.Signature):
    """Read port of the expert queues.

    Members:
        expert, index: which entry of whose queue
        token, score: that entry, one cycle later
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "expert": Out(EXPERT_BITS),
                "index": Out(TOKEN_BITS),
                "token": In(TOKEN_BITS),
                "score": In(ROW_FACTOR_BITS),
            }
        )


class GateLogits(wiring.Signature):
    """A token's gate logits on their way to the gate unit, ``lanes`` experts at a time; no backpressure.

    Members:
        valid: a group is there
        values: the experts' logits, in expert order
        first, last: of the token's groups
        clear: empty all queues; at the latest with the first group
        token: its number, with the first group
        num_experts, top_k: of the layer; constant while a token's logits are on their way or in the unit
    """

    def __init__(self, lanes: int):
        super().__init__(
            {
                "valid": Out(1),
                "values": Out(data.ArrayLayout(signed(16), lanes)),
                "first": Out(1),
                "last": Out(1),
                "clear": Out(1),
                "token": Out(TOKEN_BITS),
                "num_experts": Out(EXPERT_COUNT_BITS),
                "top_k": Out(TOP_K_BITS),
            }
        )
