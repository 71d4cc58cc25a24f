"""Which MATMULs have finished, in their order."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.spec.constants import COUNT_BITS

__all__ = ["Completion"]


class Completion(wiring.Component):
    """Counts MATMULs that have started, that have written their last result, and that are reported.

    Members:
        started: a command has been taken, with the number ``index`` in the program
        ended: the oldest has written its last result, or has had nothing to do
        gate_busy: expert queues are still being written: none is reported
        done: one is reported; a cycle after it has ended at the earliest
        drained: all that had started in the cycle before were reported then
        command: number of the last command that has started
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "started": In(1),
                "index": In(COUNT_BITS),
                "ended": In(1),
                "gate_busy": In(1),
                "done": Out(1),
                "drained": Out(1, init=1),
                "command": Out(COUNT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        started, ended, reported = Signal(COUNT_BITS), Signal(COUNT_BITS), Signal(COUNT_BITS)
        m.d.comb += self.done.eq((ended != reported) & ~self.gate_busy)
        # A register: the next command that looks at it comes two cycles behind one that has just started.
        m.d.sync += self.drained.eq((started == reported) & ~self.started)
        with m.If(self.started):
            m.d.sync += [started.eq(started + 1), self.command.eq(self.index)]
        with m.If(self.ended):
            m.d.sync += ended.eq(ended + 1)
        with m.If(self.done):
            m.d.sync += reported.eq(reported + 1)
        return m
