"""Fixed delays."""

from typing import TypeVar

from amaranth.hdl import Module, Signal

__all__ = ["delay"]


_Value = TypeVar("_Value")


def delay(m: Module, value: _Value, cycles: int, name: str) -> _Value:
    """``value`` (any value or view) ``cycles`` clock cycles later; the registers are named after ``name``."""
    for index in range(cycles):
        register = Signal.like(value, name=f"{name}_{index + 1}")
        m.d.sync += register.eq(value)
        value = register
    return value
