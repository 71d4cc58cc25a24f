"""Which part of an inference is recorded as waveforms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["LIMIT", "Waves"]

#: Bytes of a file, unless others are asked for.
LIMIT = 2_000_000_000


@dataclass(frozen=True)
class Waves:
    """Waveforms of a range of commands, as a VCD file.

    Attributes:
        path: file to write
        first: program index (as ``edgemoe disasm`` shows it); recording begins when the command before it on the same
            engine has finished, or with the program
        last: program index of the command whose end ends the recording; None: the program's end
        limit: bytes at which the file ends in any case; of large arrays a cycle takes a hundred kilobytes, an inference
            tens of gigabytes
    """

    path: Path
    first: int = 0
    last: int | None = None
    limit: int = LIMIT

    def check(self, commands: int) -> None:
        """Raise ValueError unless both are commands of a program and in order."""
        last = commands - 1 if self.last is None else self.last
        if not 0 <= self.first <= last < commands:
            raise ValueError(
                f"waves must be of commands 0 to {commands - 1}, the first not after the last, "
                f"not {self.first} to {last}"
            )
