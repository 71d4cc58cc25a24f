"""Starts, stops and resets programs, and keeps what the host reads about them."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.interfaces import ERROR_REPORT
from edgemoe_hw.spec.constants import COUNT_BITS
from edgemoe_hw.spec.regs import ErrorCode

__all__ = ["Supervisor"]

_SETTLE = 4
"""Cycles in which a reset, or its end, gets through its registers to every unit."""
_DRAIN = 8
"""Cycles in which a reset gets there, and the units' errors and what they had on the bus from there to here."""


class Supervisor(wiring.Component):
    """State of the accelerator.

    Args:
        sources: number of error inputs; of those in one cycle, the lowest number wins

    Members:
        start, soft_reset, irq_clear: strobes of the host
        watchdog_limit: cycles without ``progress`` that stop a program; 0: never
        progress: something moved
        finished: the sequencer reached END and all engines are done
        bus_idle: no bus transfer is outstanding
        errors: stop the program, two cycles later; they count only while ``running``
        index: command that a watchdog error names: the first one not dispatched, or END
        launch: one cycle; the program starts
        running: from launch to the cycle of the end
        reset: engines, queues and sequencer must reset themselves; bus ports drain. Registers may pass it on, as long
            as a unit is in reset ``_SETTLE`` cycles later and its errors and ``bus_idle`` show it within ``_DRAIN``
        busy, done, error, irq, error_code, error_command: as in the register map
    """

    def __init__(self, *, sources: int):
        super().__init__(
            {
                "start": In(1),
                "soft_reset": In(1),
                "irq_clear": In(1),
                "watchdog_limit": In(32),
                "progress": In(1),
                "finished": In(1),
                "bus_idle": In(1),
                "errors": In(ERROR_REPORT).array(sources),
                "index": In(COUNT_BITS),
                "launch": Out(1),
                "running": Out(1),
                "reset": Out(1),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(1),
                "irq": Out(1),
                "error_code": Out(8),
                "error_command": Out(COUNT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        idle_cycles, progress, late = Signal(32), Signal(), Signal()
        m.d.sync += [
            progress.eq(self.progress),
            idle_cycles.eq(Mux(self.running & ~progress, idle_cycles + 1, 0)),
            late.eq((self.watchdog_limit != 0) & (idle_cycles >= self.watchdog_limit)),
        ]

        # Errors come out of long paths through the engines, so they end in registers here, and another cycle chooses
        # among them; so does the end: the last command's error must not come behind it.
        report, finished = Signal(ERROR_REPORT), Signal()
        first_report = Signal(ERROR_REPORT)
        m.d.sync += [report.eq(first_report), finished.eq(self.finished)]
        with m.If(late):
            m.d.comb += [
                first_report.valid.eq(1),
                first_report.code.eq(ErrorCode.WATCHDOG),
                first_report.index.eq(self.index),
            ]
        for number, error in reversed(list(enumerate(self.errors))):
            caught = Signal(ERROR_REPORT, name=f"caught_{number}")
            m.d.sync += caught.eq(error)
            with m.If(caught.valid):
                m.d.comb += first_report.eq(caught)

        def forget() -> None:
            m.d.sync += [
                self.done.eq(0),
                self.error.eq(0),
                self.irq.eq(0),
                self.error_code.eq(ErrorCode.NONE),
                self.error_command.eq(0),
            ]

        m.d.comb += self.busy.eq(1)
        with m.If(self.irq_clear):
            m.d.sync += self.irq.eq(0)

        elapsed = Signal(range(_DRAIN))  # cycles of this state
        with m.If(elapsed != _DRAIN - 1):
            m.d.sync += elapsed.eq(elapsed + 1)

        def go(name: str) -> None:
            m.d.sync += elapsed.eq(0)
            m.next = name

        def next_state(name: str) -> None:
            with m.If(self.soft_reset):
                go("DRAIN")
            with m.Elif(elapsed == _SETTLE - 1):
                go(name)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                with m.If(self.soft_reset):
                    go("DRAIN")
                with m.Elif(self.start):
                    forget()
                    go("PREPARE")
            with m.State("PREPARE"):
                m.d.comb += self.reset.eq(1)
                next_state("SETTLE")
            with m.State("SETTLE"):
                next_state("LAUNCH")
            with m.State("LAUNCH"):
                m.d.comb += self.launch.eq(1)
                go("RUN")
                with m.If(self.soft_reset):
                    go("DRAIN")
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(report.valid):
                    m.d.sync += [
                        self.error.eq(1),
                        self.irq.eq(1),
                        self.error_code.eq(report.code),
                        self.error_command.eq(report.index),
                    ]
                    go("DRAIN")
                with m.Elif(finished):
                    m.d.sync += [self.done.eq(1), self.irq.eq(1)]
                    m.next = "IDLE"
                with m.If(self.soft_reset):
                    go("DRAIN")
            with m.State("DRAIN"):
                m.d.comb += self.reset.eq(1)
                with m.If((elapsed == _DRAIN - 1) & self.bus_idle):
                    m.next = "IDLE"
        # Behind the state machine, so that it wins over what the state sets in the same cycle.
        with m.If(self.soft_reset):
            forget()
        return m
