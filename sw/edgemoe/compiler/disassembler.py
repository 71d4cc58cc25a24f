"""Programs as text, one line a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgemoe_hw.spec.isa import (
    COMMAND_BYTES,
    Base,
    Engine,
    Memory,
    Mode,
    Opcode,
    RowFactor,
    Source,
    decode,
)

__all__ = ["disassemble"]

_ENUMS = {"memory": Memory, "base": Base, "source": Source, "mode": Mode, "row_factor": RowFactor}


def disassemble(program: bytes, phases: Sequence[str]) -> Iterator[str]:
    """Lines of index, opcode, waits, phase and the fields that are not zero.

    Raises:
        ValueError: the program's length or an opcode is illegal
    """
    if len(program) % COMMAND_BYTES:
        raise ValueError(f"a program must be a multiple of {COMMAND_BYTES} bytes, not {len(program)}")
    for index in range(len(program) // COMMAND_BYTES):
        opcode, header, payload = decode(program[COMMAND_BYTES * index : COMMAND_BYTES * (index + 1)])
        waits = [
            f"{engine.name.lower()}>={header[key]}" for engine in Engine if header[key := f"wait_{engine.name.lower()}"]
        ]
        parts = [f"{index:5d} {opcode.name:9s}"]
        if opcode not in (Opcode.BEGIN, Opcode.END):
            parts.append(phases[header["phase"]])
        if header["predicated"]:
            parts.append(f"if expert {header['expert']}")
        if waits:
            parts.append(f"[{' '.join(waits)}]")
        for name, value in payload.items():
            if name in _ENUMS:
                parts.append(f"{name}={_ENUMS[name](value).name}")
            elif value:
                parts.append(f"{name}={value}")
        yield " ".join(parts)
