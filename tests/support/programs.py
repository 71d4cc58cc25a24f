"""Programs that are searched, and changed on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgemoe_hw.spec.isa import COMMAND_BYTES, HEADER_BITS, HEADER_FIELDS, Header, Payload, decode, encode

__all__ = ["changed", "command", "find", "forged", "rewritten"]


def command(program: bytes, index: int) -> tuple[Header, Payload]:
    """One command."""
    return decode(program[COMMAND_BYTES * index : COMMAND_BYTES * (index + 1)])


def find(program: bytes, kind: type[Payload], **wanted: int) -> list[int]:
    """Indices of the commands of this kind with these payload fields."""
    return [
        index
        for index in range(len(program) // COMMAND_BYTES)
        for _, payload in [command(program, index)]
        if isinstance(payload, kind) and all(getattr(payload, name) == value for name, value in wanted.items())
    ]


def _spliced(program: bytes, index: int, word: bytes) -> bytes:
    return program[: COMMAND_BYTES * index] + word + program[COMMAND_BYTES * (index + 1) :]


def rewritten(program: bytes, index: int, change: Callable[[Header, Payload], tuple[Header, Payload]]) -> bytes:
    """The program with one command changed."""
    header, payload = change(*command(program, index))
    return _spliced(program, index, encode(payload, header))


def changed(program: bytes, index: int, **fields: Any) -> bytes:
    """The program with one command's payload changed."""
    return rewritten(program, index, lambda header, payload: (header, replace(payload, **fields)))


def forged(program: bytes, index: int, name: str, value: int) -> bytes:
    """The program with one field's bits replaced, whether or not they have a meaning."""
    payload = command(program, index)[1]
    fields = {field.name: (field.offset, field.width) for field in HEADER_FIELDS}
    fields |= {field.name: (field.offset + HEADER_BITS, field.width) for field in payload.fields()}
    offset, width = fields[name]
    assert 0 <= value < 1 << width
    word = int.from_bytes(program[COMMAND_BYTES * index : COMMAND_BYTES * (index + 1)], "little")
    word = word & ~(((1 << width) - 1) << offset) | value << offset
    return _spliced(program, index, word.to_bytes(COMMAND_BYTES, "little"))
