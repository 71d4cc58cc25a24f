"""Rows of a scratchpad, given out so that a LOAD waits for as little as possible."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgemoe.compiler.errors import CompileError

__all__ = ["RowAllocator"]


class RowAllocator:
    """Contiguous rows, least recently used first: a ring that may hold long-lived regions.

    Because the program is lowered in sequential order, a region is *live* from ``alloc`` to ``release``; released
    rows remember the release's time, and a new region takes the window whose latest release is the oldest, so that its
    LOAD, which waits for those rows' last reader, can start as early as possible.

    Args:
        name: the scratchpad's name, for messages
        depth: rows
    """

    _LIVE = 1 << 60

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.depth = depth
        self._stamp = np.zeros(depth, dtype=np.int64)
        self._clock = 0

    def longest_free(self) -> int:
        """Rows of the longest window that ``alloc`` could give out now."""
        edges = np.flatnonzero(np.diff(np.concatenate(([True], self._stamp >= self._LIVE, [True])).astype(np.int8)))
        return max((int(stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)), default=0)

    def alloc(self, rows: int, what: str, below: int | None = None) -> int:
        """First row of ``rows`` contiguous rows (all ``below`` that row); CompileError when there is no such window."""
        stamps = self._stamp[:below]
        if rows <= len(stamps):
            latest = sliding_window_view(stamps, rows).max(axis=1)
            base = int(latest.argmin())
            if latest[base] < self._LIVE:
                self._stamp[base : base + rows] = self._LIVE
                return base
        raise CompileError(
            f"{what} needs {rows} contiguous rows of the {self.name} scratchpad, but only "
            f"{self.longest_free()} of {self.depth} are free: {rows - self.longest_free()} too few"
        )

    def alloc_each(self, sizes: Sequence[int], what: str) -> list[int]:
        """Rows for several regions: each where it is free soonest, or, if that would fragment, one after the other."""
        stamps = self._stamp.copy()
        try:
            return [self.alloc(rows, what) for rows in sizes]
        except CompileError:
            self._stamp = stamps
        base = self.alloc(sum(sizes), what)
        return list(itertools.accumulate(sizes[:-1], initial=base))

    def reserve(self, base: int, rows: int, what: str) -> int:
        """Hold the given rows, which must be free."""
        if base < 0 or (self._stamp[base : base + rows] >= self._LIVE).any():
            raise CompileError(f"{what} needs {rows} rows of the {self.name} scratchpad, which has {self.depth}")
        self._stamp[base : base + rows] = self._LIVE
        return base

    @contextlib.contextmanager
    def kept_free(self, rows: int) -> Iterator[None]:
        """Give out nothing of ``rows`` rows meanwhile, which are those that were used last: they are for later."""
        if not rows or rows > self.longest_free():
            yield
            return
        latest = sliding_window_view(self._stamp, rows).max(axis=1)
        base = int(np.where(latest < self._LIVE, latest, -1).argmax())
        stamps = self._stamp[base : base + rows].copy()
        self._stamp[base : base + rows] = self._LIVE
        try:
            yield
        finally:
            self._stamp[base : base + rows] = stamps

    def release(self, base: int, rows: int) -> None:
        """Give rows back; everything that uses them has been emitted."""
        self._clock += 1
        self._stamp[base : base + rows] = self._clock
