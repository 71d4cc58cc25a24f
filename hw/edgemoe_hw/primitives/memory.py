"""Block RAM or UltraRAM, with its output register."""

from amaranth.hdl import Module, ShapeLike, Signal, Value
from amaranth.lib.memory import Memory

__all__ = ["read_memory", "styled_memory"]


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
    if cycles not in (1, 2):
        raise ValueError(f"a memory is read in 1 or 2 cycles, not {cycles!r}")
    read = memory.read_port()
    if len(row) != len(read.addr):
        raise ValueError(f"a memory of {memory.depth} rows has addresses of {len(read.addr)} bits, not {len(row)}")
    m.d.comb += read.addr.eq(row)
    if cycles == 1:
        return Value.cast(read.data)
    register = Signal.like(read.data, name=f"{name}_register", reset_less=True)
    m.d.sync += register.eq(read.data)
    return register
