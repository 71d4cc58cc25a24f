"""Scenes that other processes generate into shared memory while training already reads the first of them."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgemoe_models.datasets import scenes
from edgemoe_models.datasets.arrays import Array, Arrays, array_form, array_names, scene_labels

_PIECE = 16  # scenes that a process makes in a row
_POLL = 0.02  # seconds


class GrowingScenes:
    """The first ``count`` scenes of a split, of which ``ready`` are there already. Needs a system that can fork.

    Args:
        split: of ``scenes.SPLITS``
        count: scenes, at most
        size: height and width in pixels
        labels: which arrays besides ``image``
        workers: processes that generate

    Attributes:
        arrays: by name, [count, height, width, ...] as ``datasets.arrays.load_split`` has them; filled in order

    Raises:
        ValueError: an unknown split or label, or more scenes than the split has.
    """

    def __init__(self, split: str, count: int, size: tuple[int, int], labels: Iterable[str], workers: int) -> None:
        if split not in scenes.SPLITS:
            raise ValueError(f"split must be one of {sorted(scenes.SPLITS)}, not {split!r}")
        seeds = scenes.SPLITS[split]
        if not 1 <= count <= len(seeds):
            raise ValueError(f"count of {split} must be in 1..{len(seeds)}, not {count!r}")
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers!r}")
        self.count = count
        self.arrays: Arrays = {}
        for name in array_names(labels):
            dtype, shape = array_form(name, (count, *size))
            self.arrays[name] = _shared(shape, dtype)
        self._done = _shared((-(-count // _PIECE),), np.bool_)
        context = multiprocessing.get_context("fork")
        arguments = (self.arrays, self._done, seeds, size, workers, os.getpid())
        self._processes = [
            context.Process(target=_generate, args=(first, *arguments), daemon=True) for first in range(workers)
        ]
        with warnings.catch_warnings():  # children touch NumPy alone, none of the threads that Python warns of
            warnings.simplefilter("ignore", DeprecationWarning)
            for process in self._processes:
                process.start()

    @property
    def ready(self) -> int:
        """Scenes, from the first, that are finished."""
        pieces = len(self._done) if self._done.all() else int(self._done.argmin())
        return min(pieces * _PIECE, self.count)

    def wait(self, count: int) -> None:
        """Until ``count`` scenes are there; RuntimeError when the processes ended without them."""
        while self.ready < min(count, self.count):
            running = any(process.is_alive() for process in self._processes)
            if not running and self.ready < min(count, self.count):
                raise RuntimeError(f"the processes that generate scenes ended after {self.ready} of {self.count}")
            time.sleep(_POLL)

    def stop(self) -> None:
        """End the processes; what is there stays."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()


def _shared(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that a forked process shares. Memory of no file: the folder of shared memory is small in containers."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)


def _generate(
    first: int, arrays: Arrays, done: Array, seeds: range, size: tuple[int, int], workers: int, parent: int
) -> None:
    """Pieces ``first``, ``first + workers``, ...; ends with the process that wants them, and lets it go first."""
    os.nice(10)
    count = len(arrays["image"])
    for piece in range(first, len(done), workers):
        for index in range(piece * _PIECE, min((piece + 1) * _PIECE, count)):
            if os.getppid() != parent:
                return
            made = scene_labels(seeds[index], *size, arrays)
            for name, array in arrays.items():
                array[index] = made[name]
        done[piece] = True
