"""Fixed delays."""

from amaranth import Module, Signal

__all__ = ["delay"]


def delay(m: Module, value, cycles: int, name: str):
    """``value`` (any value or view) ``cycles`` clock cycles later; the registers are named after ``name``."""
    for index in range(cycles):
        register = Signal.like(value, name=f"{name}_{index + 1}")
        m.d.sync += register.eq(value)
        value = register
    return value
