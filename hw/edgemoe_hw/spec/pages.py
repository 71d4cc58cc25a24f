"""Which pages of a memory, that of a simulation or of a board without an operating system, are in use."""

from __future__ import annotations

__all__ = ["PAGE", "Pages"]

PAGE = 4096


class Pages:
    """Hands out whole pages of ``nbytes`` of memory, always the first gap that is large enough.

    ``name``: what errors call the memory
    """

    def __init__(self, nbytes: int, name: str) -> None:
        self._nbytes, self._name = nbytes, name
        self._used: dict[int, int] = {}  # address -> size

    def __len__(self) -> int:
        """How many allocations there are."""
        return len(self._used)

    def take(self, nbytes: int) -> int:
        """Address of a new allocation; MemoryError when there is no gap for it."""
        size, begin = -(-nbytes // PAGE) * PAGE, 0
        for address, used in sorted(self._used.items()):
            if address - begin >= size:
                break
            begin = address + used
        if begin + size > self._nbytes:
            raise MemoryError(f"{self._name} of {self._nbytes} bytes has no {size} bytes left")
        self._used[begin] = size
        return begin

    def give(self, address: int) -> None:
        """Give an allocation back; a second call does nothing."""
        self._used.pop(address, None)
