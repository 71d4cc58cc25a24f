"""Block RAM or UltraRAM, with its output register."""

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value
from amaranth.lib.memory import Memory

__all__ = ["memory_parts", "read_memory", "read_parts", "styled_memory"]

_WHOLE = 1024
"""Rows by which tools stack block RAMs of 36 bits."""
_LITTLE = 256
"""Rows beyond those for which another block RAM of ``_WHOLE`` is not worth it."""


def memory_parts(depth: int, style: str) -> list[range]:
    """Rows of a memory, or of two: tools give the last few rows of one as many block RAMs as another 1024 take.

    A memory of their own is LUT memory, or small block RAMs. Its first row is a multiple of its rows' power of two.
    """
    little = depth % _WHOLE
    if style != "auto" or depth < _WHOLE or not 0 < little <= _LITTLE:
        return [range(depth)]
    return [range(depth - little), range(depth - little, depth)]


def styled_memory(shape: ShapeLike, depth: int, style: str) -> Memory:
    """A memory that starts with zeros in a simulation and with anything in UltraRAM.

    ``style``: "block" or "ultra", what Vivado and Yosys call ``ram_style``; or "auto", their choice.
    """
    return Memory(shape=shape, depth=depth, init=[], attrs={} if style == "auto" else {"ram_style": style})


def read_memory(m: Module, memory: Memory, row: Value, cycles: int, name: str) -> Value:
    """Content of ``memory``'s row ``row``, ``cycles`` clock cycles later (1, or 2 with the output register).

    ``row`` has exactly the address's bits. The register has no reset, as that of a block RAM or UltraRAM, so that tools
    can put it there; it is named after ``name``.
    """
    return read_parts(m, [memory], [row], Value.cast(0), cycles, name)


def read_parts(
    m: Module, memories: Sequence[Memory], rows: Sequence[Value], in_last: Value, cycles: int, name: str
) -> Value:
    """``read_memory`` of one of one or two memories, each with its own ``row``: of the second if ``in_last``."""
    if cycles not in (1, 2):
        raise ValueError(f"a memory is read in 1 or 2 cycles, not {cycles!r}")
    found = []
    for memory, row in zip(memories, rows, strict=True):
        read = memory.read_port()
        if len(row) != len(read.addr):
            raise ValueError(f"a memory of {memory.depth} rows has addresses of {len(read.addr)} bits, not {len(row)}")
        m.d.comb += read.addr.eq(row)
        found.append(read.data)
    data = Value.cast(found[0])
    if len(found) == 2:
        was_in_last = Signal(name=f"{name}_in_last", reset_less=True)
        m.d.sync += was_in_last.eq(in_last)
        data = Mux(was_in_last, found[1], found[0])
    if cycles == 1:
        return data
    register = Signal.like(found[0], name=f"{name}_register", reset_less=True)
    m.d.sync += register.eq(data)
    return register
