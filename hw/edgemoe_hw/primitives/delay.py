"""Fixed delays, and registers that share a load."""

from typing import TypeVar

from amaranth.hdl import Module, Signal, Value

__all__ = ["copies", "delay"]


_Value = TypeVar("_Value")


def delay(m: Module, value: _Value, cycles: int, name: str, *, reset_less: bool = False) -> _Value:
    """``value`` (any value or view) ``cycles`` clock cycles later; the registers are named after ``name``.

    ``reset_less``: a reset leaves them as they are, which is right for data that another bit declares valid.
    """
    for index in range(cycles):
        register = Signal.like(value, name=f"{name}_{index + 1}", reset_less=reset_less)
        m.d.sync += register.eq(value)
        value = register
    return value


def copies(m: Module, value: Value, count: int, name: str) -> list[Signal]:
    """``count`` equal registers of ``value``, one cycle later, each to drive a part of a large load.

    Tools that merge equal registers, or make shift registers of them, find them marked. They have no reset.
    """
    marks = {"keep": "true", "shreg_extract": "no"}
    registers = [Signal(value.shape(), name=f"{name}_{index}", reset_less=True, attrs=marks) for index in range(count)]
    m.d.sync += [register.eq(value) for register in registers]
    return registers
