"""Records of bit fields: each field is declared once, with its width and its meaning; values are checked when made."""

from __future__ import annotations

import dataclasses
import enum
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

__all__ = ["Field", "FieldError", "Record", "array", "bits", "flag"]

_Kind = TypeVar("_Kind", bound=enum.IntEnum)
_Record = TypeVar("_Record", bound="Record")
_KEY = "bit field"


class FieldError(ValueError):
    """A value does not fit its field, or bits have no meaning."""


@dataclass(frozen=True)
class Field:
    """Where a field lies in its record.

    Attributes:
        name: in documents; an array's elements have names of their own
        offset: lowest bit
        width: bits
        meaning: in a few words
    """

    name: str
    offset: int
    width: int
    meaning: str


@dataclass(frozen=True)
class _Declaration:
    """What ``bits``, ``flag`` or ``array`` declared: ``elements`` (name, meaning) of ``width`` bits each."""

    width: int
    kind: type[int]
    meaning: str
    elements: tuple[tuple[str, str], ...] = ()


def _declare(declaration: _Declaration, default: object) -> Any:
    return dataclasses.field(default=default, metadata={_KEY: declaration})


@overload
def bits(width: int, meaning: str) -> int: ...
@overload
def bits(width: int, meaning: str, kind: type[_Kind]) -> _Kind: ...
def bits(width: int, meaning: str, kind: type[int] = int) -> Any:
    """Declare an unsigned field of ``width`` bits, of an enumeration's values if given; 0 unless set."""
    return _declare(_Declaration(width, kind, meaning), kind(0))


def flag(meaning: str) -> bool:
    """Declare a field of one bit; False unless set."""
    result: bool = _declare(_Declaration(1, bool, meaning), False)
    return result


def array(width: int, elements: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """Declare neighbouring fields of ``width`` bits, a tuple in Python; ``elements`` are their names and meanings."""
    result: tuple[int, ...] = _declare(_Declaration(width, int, "", tuple(elements)), (0,) * len(elements))
    return result


class Record:
    """Base of dataclasses whose fields are declared with ``bits``, ``flag`` and ``array``, from the lowest bits up.

    Raises:
        FieldError: at construction: a value does not fit its field
    """

    @classmethod
    def fields(cls) -> tuple[Field, ...]:
        """All fields, arrays' elements one by one."""
        fields: list[Field] = []
        offset = 0
        for name, declared in _declarations(cls):
            for element, meaning in declared.elements or ((name, declared.meaning),):
                fields.append(Field(element, offset, declared.width, meaning))
                offset += declared.width
        return tuple(fields)

    @classmethod
    def width(cls) -> int:
        """Bits of the record."""
        return sum(field.width for field in cls.fields())

    @classmethod
    def members(cls) -> dict[str, int | tuple[int, int]]:
        """Widths by Python name; an array's is (width, number of elements)."""
        return {
            name: (declared.width, len(declared.elements)) if declared.elements else declared.width
            for name, declared in _declarations(cls)
        }

    def __post_init__(self) -> None:
        for name, declared in _declarations(type(self)):
            value = getattr(self, name)
            if declared.elements:
                checked: object = self._check_array(name, declared, value)
            else:
                checked = self._check(name, declared, value)
            if checked is not value:
                object.__setattr__(self, name, checked)

    def _check(self, name: str, declared: _Declaration, value: Any) -> int:
        what, limit = f"{type(self).__name__}.{name}", 1 << declared.width
        try:
            number = operator.index(value)
        except TypeError:
            raise FieldError(f"{what} must be an integer, not {value!r}") from None
        if not 0 <= number < limit:
            raise FieldError(f"{what} must be between 0 and {limit - 1}, not {number}")
        try:
            return declared.kind(number)
        except ValueError:
            assert issubclass(declared.kind, enum.IntEnum)
            known = ", ".join(f"{member.name} ({member.value})" for member in declared.kind)
            raise FieldError(f"{what} must be {known}, not {number}") from None

    def _check_array(self, name: str, declared: _Declaration, value: Any) -> tuple[int, ...]:
        if len(value) != len(declared.elements):
            raise FieldError(f"{type(self).__name__}.{name} must have {len(declared.elements)} values, not {value!r}")
        return tuple(
            self._check(element, declared, item) for (element, _), item in zip(declared.elements, value, strict=True)
        )

    def pack(self) -> int:
        """The record as a number."""
        word = offset = 0
        for name, declared in _declarations(type(self)):
            value = getattr(self, name)
            for item in value if declared.elements else (value,):
                word |= item << offset
                offset += declared.width
        return word

    @classmethod
    def unpack(cls: type[_Record], word: int) -> _Record:
        """The record that ``word`` holds.

        Raises:
            FieldError: a value is none of its enumeration's, or ``word`` has bits beyond the last field
        """
        values: dict[str, Any] = {}
        for name, declared in _declarations(cls):
            items = []
            for _ in declared.elements or (None,):
                items.append(word & ((1 << declared.width) - 1))
                word >>= declared.width
            values[name] = tuple(items) if declared.elements else items[0]
        if word:
            raise FieldError(f"{cls.__name__}: bits from {cls.width()} on must be 0")
        return cls(**values)


_CACHE: dict[type[Record], tuple[tuple[str, _Declaration], ...]] = {}


def _declarations(cls: type[Record]) -> tuple[tuple[str, _Declaration], ...]:
    """A record's declarations by Python name."""
    if cls not in _CACHE:
        assert dataclasses.is_dataclass(cls)
        _CACHE[cls] = tuple((field.name, field.metadata[_KEY]) for field in dataclasses.fields(cls))
    return _CACHE[cls]
