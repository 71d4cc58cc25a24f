"""Programs as text, one line a command."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

from edgemoe_hw.spec.isa import Engine, EnginePayload, Header, Payload, decode_program

__all__ = ["disassemble"]


def _fields(payload: Payload) -> Iterator[str]:
    """Enumerations by name, the other fields where they are not zero."""
    for name in payload.members():
        value = getattr(payload, name)
        if isinstance(value, enum.IntEnum):
            yield f"{name}={value.name}"
        elif value:
            yield f"{name}={value:d}"


def _line(index: int, header: Header, payload: Payload, phases: Sequence[str]) -> str:
    waits = [f"{engine.name.lower()}>={header.waits[engine]}" for engine in Engine if header.waits[engine]]
    parts = [f"{index:5d} {payload.opcode.name:9s}"]
    if isinstance(payload, EnginePayload):
        parts.append(phases[header.phase])
    if header.predicated:
        parts.append(f"if expert {header.expert}")
    if waits:
        parts.append(f"[{' '.join(waits)}]")
    return " ".join([*parts, *_fields(payload)])


def disassemble(program: bytes, phases: Sequence[str]) -> Iterator[str]:
    """Lines of index, opcode, waits, phase and the fields that are not zero.

    Raises:
        ValueError: the program's length, an opcode or a field's value is illegal
    """
    for index, (header, payload) in enumerate(decode_program(program)):
        yield _line(index, header, payload, phases)
