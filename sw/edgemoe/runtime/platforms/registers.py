"""Registers by name on a platform; every number comes from the declaration in ``edgemoe_hw.spec.regs``."""

from __future__ import annotations

from edgemoe.runtime.platforms.base import Platform
from edgemoe_hw.spec import regs

__all__ = ["Registers", "mask"]

_REGISTERS = {register.name: register for register in regs.REGISTERS}
_WORD = 0xFFFF_FFFF


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
