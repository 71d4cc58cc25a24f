"""An executor that computes nothing, for tests of what happens when."""

from __future__ import annotations

import numpy as np

from edgemoe.runtime.executor import Executor, Measured

__all__ = ["Recorder"]


class Recorder(Executor):
    """Computes nothing; tells ``hook`` of the begin and the end of each step with the number of its frame.

    ``packed`` has the slot and place of every image, ``programs`` every program with its input slot and first place.
    """

    name = "recorder"

    def __init__(self, bundle, depth=2, hook=lambda step, frame, slot: None):
        self.bundle, self.depth, self.hook = bundle, depth, hook
        self.counts = dict.fromkeys(("pack", "execute", "unpack"), 0)
        self.closed = self.resets = 0
        self.packed, self.programs = [], []

    def step(self, name, slot):
        frame, self.counts[name] = self.counts[name], self.counts[name] + 1
        self.hook(name, frame, slot)
        self.hook(f"{name} done", frame, slot)

    def pack(self, source, image, place=0):
        self.packed.append((source, place))
        self.step("pack", source)

    def execute(self, program, source, target, cancel=None, *, first=0):
        self.programs.append((program, source, first))
        self.step("execute", (source, target))
        return Measured(0.001, 0.001)

    def unpack(self, program, target, sequence=0):
        self.step("unpack", target)
        info = self.bundle.task(self.bundle.program(program).joined.sequences[sequence].task)
        return np.zeros((info.output_rows, info.output_channels), np.int16)

    def reset(self):
        self.resets += 1

    def close(self):
        self.closed += 1
