"""Finds assignments that lose bits of what is assigned without saying so, in an elaborated design.

Amaranth cuts a value to the width of the signal that it is assigned to. That is wanted where numbers wrap (a counter, a
row's number plus an offset) or where a slice says what is left of a value; anywhere else it is a fault, and one that
the unit's own test may not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.hdl import Const, Fragment, Shape, Value
from amaranth.hdl._ast import Assign, Concat, Operator, Switch, SwitchValue
from amaranth.hdl._ir import Fragment as _Fragment

__all__ = ["Narrowing", "narrowings"]


@dataclass(frozen=True, order=True)
class Narrowing:
    """An assignment whose value may need more bits than its target has."""

    file: str
    line: int
    needs: int
    has: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.needs} bits are assigned to {self.has}"


def narrowings(design: Any, folder: str = "edgemoe_hw") -> list[Narrowing]:
    """All of ``design``'s whose source lies in a folder of this name, each place once."""
    found: dict[tuple[str, int], Narrowing] = {}
    for assign in _assignments(Fragment.get(design, None)):
        value, width = Value.cast(assign.rhs), len(assign.lhs)
        if _fits(value, width):
            continue
        file, line = assign.src_loc
        if folder in (parts := Path(file).parts):
            short = "/".join(parts[parts.index(folder) :])
            worst = Narrowing(short, line, _bits(_interval(value)), width)
            found[short, line] = max(worst, found.get((short, line), worst))
    return sorted(found.values())


def _assignments(fragment: _Fragment) -> Iterator[Assign]:
    for statements in fragment.statements.values():
        yield from _flat(statements)
    for subfragment, *_ in fragment.subfragments:
        yield from _assignments(subfragment)


def _flat(statements: Any) -> Iterator[Assign]:
    for statement in statements:
        if isinstance(statement, Assign):
            yield statement
        elif isinstance(statement, Switch):
            for _, body, *_ in statement.cases:
                yield from _flat(body)


def _fits(value: Value, width: int) -> bool:
    """Whether ``width`` bits hold every value, or the value is one that wraps at just this width."""
    if width == 0 or _bits(_interval(value)) <= width:  # no bits: a counter of one possibility
        return True
    if isinstance(value, SwitchValue):
        return all(_fits(branch, width) for _, branch in value.cases)
    if isinstance(value, Operator) and value.operator in ("+", "-"):
        terms = [_bits(_interval(term)) for term in _terms(value)]
        return max(terms) == width
    return False


def _terms(value: Value) -> Iterator[Value]:
    """What a sum adds and subtracts."""
    if isinstance(value, Operator) and value.operator in ("+", "-"):
        for operand in value.operands:
            yield from _terms(operand)
    elif isinstance(value, SwitchValue):
        for _, branch in value.cases:
            yield from _terms(branch)
    else:
        yield value


def _bits(interval: tuple[int, int]) -> int:
    """Bits that hold all values of an interval; a number from 2^(n - 1) on counts as unsigned."""
    low, high = interval
    return max(high.bit_length(), (-low - 1).bit_length() + 1 if low < 0 else 0)


def _of_shape(shape: Shape) -> tuple[int, int]:
    if shape.signed:
        return -(1 << shape.width - 1), (1 << shape.width - 1) - 1
    return 0, (1 << shape.width) - 1


def _interval(value: Value) -> tuple[int, int]:
    """Smallest and largest value that ``value`` can have, as far as its form tells."""
    if isinstance(value, Const):
        return value.value, value.value
    if isinstance(value, SwitchValue):
        branches = [_interval(branch) for _, branch in value.cases]
        return min(low for low, _ in branches), max(high for _, high in branches)
    if isinstance(value, Concat):
        high = offset = 0
        for part in value.parts:
            high |= (_interval(part)[1] if isinstance(part, Const) else (1 << len(part)) - 1) << offset
            offset += len(part)
        return 0, high
    if isinstance(value, Operator):
        return _of_operator(value)
    return _of_shape(value.shape())  # a signal, or a slice, which says what it takes


def _of_operator(value: Operator) -> tuple[int, int]:
    operator, operands = value.operator, value.operands
    (low, high), *others = (_interval(operand) for operand in operands)
    if operator == "-" and not others:
        return -high, -low
    if not others:
        return _of_shape(value.shape())
    other_low, other_high = others[0]
    if operator == "+":
        return low + other_low, high + other_high
    if operator == "-":
        return low - other_high, high - other_low
    if operator == "*":
        products = [a * b for a in (low, high) for b in (other_low, other_high)]
        return min(products), max(products)
    if operator == "<<":
        return min(low, low << other_high), high << other_high
    if operator == ">>":
        return min(low >> other_low, low >> other_high), high >> other_low
    if operator == "&" and low >= 0 and other_low >= 0:
        return 0, min(high, other_high)
    return _of_shape(value.shape())
