"""Performance counters: what happened in every cycle of a program."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Engine

__all__ = ["CAUSES", "Counters"]

# Exactly one of these counts in each cycle; the registers have the same names.
CAUSES = ("array_busy", "stall_epilogue", *(f"stall_{engine.name.lower()}" for engine in Engine), "stall_command")


class Counters(wiring.Component):
    """64-bit counters of the running program.

    Members:
        clear: set all to 0
        running: count cycles and causes
        array_busy, stall_epilogue, matmul_idle: from the compute side: operands were taken; the vector unit was not
            ready; no MATMUL is being issued
        blocked, empty: of the MATMUL queue, to say why none is
        ending: the program has no more commands
        reads, writes: a beat moved, one bit a master
        finished: one bit an engine that finished a command in this cycle
        <name of a register>: its value
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "clear": In(1),
                "running": In(1),
                "array_busy": In(1),
                "stall_epilogue": In(1),
                "matmul_idle": In(1),
                "blocked": In(len(Engine)),
                "empty": In(1),
                "ending": In(1),
                "reads": In(config.axi_masters),
                "writes": In(1),
                "finished": In(len(Engine)),
                **{f"count_{cause}": Out(64) for cause in CAUSES},
                "count_cycles": Out(64),
                "count_bytes_read": Out(64),
                "count_bytes_written": Out(64),
                "count_commands_done": Out(64),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cause = {name: Signal(name=f"is_{name}") for name in CAUSES}
        order = (
            (self.array_busy, "array_busy"),
            (self.stall_epilogue, "stall_epilogue"),
            (~self.matmul_idle, "stall_matmul"),
            *((self.blocked[engine], f"stall_{engine.name.lower()}") for engine in Engine if engine != Engine.MATMUL),
            (self.blocked[Engine.MATMUL] | ~self.empty, "stall_matmul"),
            (self.ending, "stall_store"),
        )
        earlier = Const(0)
        for condition, name in order:
            with m.If(condition & ~earlier):
                m.d.comb += cause[name].eq(1)
            earlier = earlier | condition
        m.d.comb += cause["stall_command"].eq(~earlier)

        with m.If(self.running):
            m.d.sync += self.count_cycles.eq(self.count_cycles + 1)
            for name, active in cause.items():
                counter = getattr(self, f"count_{name}")
                m.d.sync += counter.eq(counter + active)
        axi_bytes = self._config.axi_bytes
        # A cycle late, because handshakes come at the end of long paths; a program ends well after its last beat.
        reads, writes = Signal(len(self.reads)), Signal()
        m.d.sync += [reads.eq(self.reads), writes.eq(self.writes)]
        beats = sum((bit for bit in reads), start=0)
        commands = sum((bit for bit in self.finished), start=0)
        m.d.sync += [
            self.count_bytes_read.eq(self.count_bytes_read + beats * axi_bytes),
            self.count_bytes_written.eq(self.count_bytes_written + writes * axi_bytes),
            self.count_commands_done.eq(self.count_commands_done + commands),
        ]
        with m.If(self.clear):
            names = (*CAUSES, "cycles", "bytes_read", "bytes_written", "commands_done")
            m.d.sync += [getattr(self, f"count_{name}").eq(0) for name in names]
        return m
