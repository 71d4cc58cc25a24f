"""Balanced trees: of sums and of maxima, in one expression or over pipeline stages."""

from collections.abc import Callable, Sequence

from amaranth.hdl import Module, Mux, Signal, Value, ValueLike

__all__ = ["maximum", "pipelined_tree", "register_stage", "tree_cycles", "tree_maximum", "tree_sum", "two_stage_sum"]

Combine = Callable[[Sequence[ValueLike]], Value]


def tree_sum(values: Sequence[ValueLike]) -> Value:
    """The sum of all ``values`` (at least one), exact."""
    return _reduce(values, lambda a, b: a + b)


def tree_maximum(values: Sequence[ValueLike]) -> Value:
    """The largest of ``values`` (at least one)."""
    return _reduce(values, maximum)


def maximum(a: ValueLike, b: ValueLike) -> Value:
    """The larger of two values."""
    a, b = Value.cast(a), Value.cast(b)
    return Mux(a > b, a, b)


def _reduce(values: Sequence[ValueLike], combine: Callable[[Value, Value], Value]) -> Value:
    terms = [Value.cast(value) for value in values]
    while len(terms) > 1:
        pairs = [terms[index : index + 2] for index in range(0, len(terms), 2)]
        terms = [combine(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return terms[0]


def register_stage(
    m: Module, values: Sequence[ValueLike], combine: Combine, fan_in: int, name: str, *, reset_less: bool = False
) -> list[Signal]:
    """Registers, each with what ``combine`` makes of the next ``fan_in`` values."""
    registers = []
    for index in range(0, len(values), fan_in):
        combined = combine(values[index : index + fan_in])
        register = Signal(combined.shape(), name=f"{name}_{index}", reset_less=reset_less)
        m.d.sync += register.eq(combined)
        registers.append(register)
    return registers


def two_stage_sum(m: Module, values: Sequence[ValueLike], name: str) -> Signal:
    """The sum of ``values`` two cycles later: first sums of about the square root of their number."""
    fan_in = 1 << (((len(values) - 1).bit_length() + 1) // 2)
    partial = register_stage(m, values, tree_sum, fan_in, f"{name}_partial")
    return register_stage(m, partial, tree_sum, len(partial), f"{name}_total")[0]


def pipelined_tree(
    m: Module, values: Sequence[ValueLike], combine: Combine, fan_in: int, name: str, *, reset_less: bool = False
) -> Value:
    """What ``combine`` makes of all ``values``, ``fan_in`` of them a stage, ``tree_cycles`` cycles later."""
    terms: Sequence[ValueLike] = values
    while len(terms) > 1:
        terms = register_stage(m, terms, combine, fan_in, f"{name}_{len(terms)}", reset_less=reset_less)
    return Value.cast(terms[0])


def tree_cycles(count: int, fan_in: int) -> int:
    """Stages of a ``pipelined_tree`` of ``count`` values."""
    cycles = 0
    while count > 1:
        count = -(-count // fan_in)
        cycles += 1
    return cycles
