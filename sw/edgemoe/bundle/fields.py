"""A program's commands, decoded and checked one field at a time for all at once: milliseconds, on a board too."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec.isa import COMMAND_BYTES, HEADER_BITS, HEADER_FIELDS, PAYLOADS, Field, Opcode

__all__ = ["Bools", "Columns", "Ints", "ProgramError", "ProgramFields"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_WORD_BITS = 64


class ProgramError(ValueError):
    """A program does what it must not; the message names the command."""


class Columns:
    """The commands of one opcode.

    Args:
        opcode: theirs
        numbers: their numbers in the program
        words: their bits, uint64 [commands, 8]
        header: the header's fields of them
    """

    def __init__(
        self, opcode: Opcode, numbers: Ints, words: npt.NDArray[np.uint64], header: Mapping[str, Ints]
    ) -> None:
        self.opcode, self.numbers, self.words, self.header = opcode, numbers, words, header
        self._values: dict[str, Ints] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def must(self, good: Bools, text: str, **values: Ints | int | str) -> None:
        """Refuse the first command for which ``good`` is false.

        Args:
            good: of every command
            text: the reason, with the names of ``values`` in braces
            values: for the message; of arrays that command's

        Raises:
            ProgramError: names the command
        """
        if not good.all():
            place = int(np.argmin(good))
            own = {name: value[place] if isinstance(value, np.ndarray) else value for name, value in values.items()}
            raise ProgramError(f"command {self.numbers[place]} ({self.opcode.name}) {text.format(**own)}")

    def must_fit(
        self, verb: str, memory: str, depth: Ints | int, begin: Ints, end: Ints, where: Bools | None = None
    ) -> None:
        """Refuse the first command (of those ``where``) whose rows ``begin`` .. ``end - 1`` are not all in a memory."""
        good = end <= depth
        self.must(
            good if where is None else good | ~where,
            "{verb} rows {begin} to {last} of memory {memory}, which has {depth}",
            verb=verb,
            begin=begin,
            last=end - 1,
            memory=memory,
            depth=depth,
        )

    def __getitem__(self, name: str) -> Ints:
        """A payload's field of every command."""
        if name not in self._values:
            self._values[name] = _extract(self.words, _payload_fields(self.opcode)[name], HEADER_BITS)
        return self._values[name]


@functools.cache
def _payload_fields(opcode: Opcode) -> dict[str, Field]:
    return {field.name: field for field in PAYLOADS[opcode].fields()}


@functools.cache
def _used_bits() -> npt.NDArray[np.uint64]:
    """Bits of a command that have a meaning, by opcode: uint64 [16, 8]."""
    used = np.zeros((1 << HEADER_FIELDS[0].width, COMMAND_BYTES * 8 // _WORD_BITS), np.uint64)
    for opcode, payload in PAYLOADS.items():
        mask = (1 << (HEADER_BITS + payload.width())) - 1
        used[opcode] = np.frombuffer(mask.to_bytes(COMMAND_BYTES, "little"), "<u8")
    return used


class ProgramFields:
    """All commands of a program.

    Args:
        program: its bytes, whole commands

    Attributes:
        count: commands
        opcodes: of every command; an illegal one too
    """

    def __init__(self, program: bytes) -> None:
        self._words = np.frombuffer(program, "<u8").reshape(-1, COMMAND_BYTES * 8 // _WORD_BITS)
        self.count = len(self._words)
        self._header = {field.name: _extract(self._words, field, 0) for field in HEADER_FIELDS}
        self.opcodes = self._header["opcode"]
        self._columns: dict[Opcode, Columns] = {}

    def header(self, name: str) -> Ints:
        """A header's field of every command."""
        return self._header[name]

    def of(self, opcode: Opcode) -> Columns:
        """The commands with this opcode."""
        if opcode not in self._columns:
            numbers = np.flatnonzero(self.opcodes == opcode)
            header = {name: values[numbers] for name, values in self._header.items()}
            self._columns[opcode] = Columns(opcode, numbers, self._words[numbers], header)
        return self._columns[opcode]

    def unused_bits(self) -> Bools:
        """Whether a command has a bit set that no field names; one with an illegal opcode has."""
        unused: Bools = (self._words & ~_used_bits()[self.opcodes]).any(1)
        return unused


def _extract(words: npt.NDArray[np.uint64], field: Field, offset: int) -> Ints:
    """A field's value in every row; at most 32 bits, so in one or two words."""
    word, shift = divmod(offset + field.offset, _WORD_BITS)
    values = words[:, word] >> np.uint64(shift)
    if shift + field.width > _WORD_BITS:
        values = values | words[:, word + 1] << np.uint64(_WORD_BITS - shift)
    return (values & np.uint64((1 << field.width) - 1)).astype(np.int64)
