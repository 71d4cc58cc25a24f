"""Registers by name on a platform; every number comes from the declaration in ``edgemoe_hw.spec.regs``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgemoe.runtime.platforms.base import Platform
from edgemoe_hw.spec import regs

__all__ = ["Registers", "mask", "pynq_registers"]

_REGISTERS = {register.name: register for register in regs.REGISTERS}
_WORD = 0xFFFF_FFFF
_ACCESS = {"ro": "read-only", "rw": "read-write", "strobe": "write-only", "w1c": "read-write"}


def mask(name: str, field: str) -> int:
    """The bits of one field of a register."""
    layout = next(f for f in regs.find(name).fields if f.name == field)
    return ((1 << layout.width) - 1) << layout.lsb


class Registers:
    """The register map of a platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def read(self, name: str, index: int = 0) -> int:
        """Value of a register, or of one of several; a wide one's low word first, which latches the high one."""
        register = _REGISTERS[name]
        offset = register.offset + 4 * index
        value = self._platform.read(offset)
        return value if register.words == 1 else value | self._platform.read(offset + 4) << 32

    def write(self, name: str, value: int) -> None:
        """Write a register; ValueError when the value has too many bits."""
        register = _REGISTERS[name]
        if not 0 <= value < 1 << register.width:
            raise ValueError(f"{name} must be at least 0 and below 2**{register.width}, not {value:#x}")
        for word in range(register.words):
            self._platform.write(register.offset + 4 * word, value >> 32 * word & _WORD)


def pynq_registers() -> dict[str, dict[str, Any]]:
    """The register map as PYNQ describes one (``DefaultIP.register_map``), by the names of its 32-bit words.

    Only a register of a single word has fields.
    """
    found = {}
    for register in regs.REGISTERS:
        accesses = {_ACCESS[field.access] for field in register.fields}
        for name, offset in _words(register):
            found[name] = {
                "address_offset": offset,
                "size": 32,
                "access": accesses.copy().pop() if len(accesses) == 1 else "read-write",
                "description": register.description,
                "fields": {
                    field.name: {
                        "bit_offset": field.lsb,
                        "bit_width": field.width,
                        "access": _ACCESS[field.access],
                        "description": field.description,
                    }
                    for field in register.fields
                    if field.name != "value"
                },
            }
    return found


def _words(register: regs.Register) -> Iterator[tuple[str, int]]:
    for index in range(register.count):
        name = register.name if register.count == 1 else f"{register.name}_{index}"
        for word in range(register.words):
            half = "" if register.words == 1 else ("_LO", "_HI")[word]
            yield name + half, register.offset + 4 * (index * register.words + word)
