"""The serial line's commands, for the bridge and for the host. Plain Python, without Amaranth."""

from __future__ import annotations

__all__ = ["ANSWER", "HEADER_BYTES", "MAX_WORDS", "MEMORY", "WRITE", "header"]

WRITE, MEMORY = 0, 1
"""Bits of the operation: a write instead of a read, of memory instead of registers."""

ANSWER = 0x50
"""The byte that ends every answer, with bus responses in its two lowest bits."""

HEADER_BYTES = 8
MAX_WORDS = (1 << 24) - 1


def header(*, write: bool, memory: bool, address: int, words: int) -> bytes:
    """A command without its data.

    Args:
        address: of the first word, in bytes
        words: of 8 bytes (memory) or 4 (registers)

    Raises:
        ValueError: an argument is out of range
    """
    if not 0 <= address < 1 << 32 or address % (8 if memory else 4):
        raise ValueError(f"address must be a multiple of {8 if memory else 4} below {1 << 32:#x}, not {address:#x}")
    if not 0 <= words <= MAX_WORDS:
        raise ValueError(f"words must be at most {MAX_WORDS}, not {words!r}")
    return bytes([write << WRITE | memory << MEMORY]) + words.to_bytes(3, "little") + address.to_bytes(4, "little")
