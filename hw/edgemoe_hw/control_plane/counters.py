"""Performance counters: what happened in every cycle of a program."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.interfaces import ArrayStatus
from edgemoe_hw.primitives.delay import copies, delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Engine

__all__ = ["CAUSES", "COUNTS", "Counters"]

# Exactly one of these counts in each cycle; the registers have the same names.
CAUSES = ("array_busy", "stall_epilogue", *(f"stall_{engine.name.lower()}" for engine in Engine), "stall_command")
COUNTS = (*CAUSES, "cycles", "bytes_read", "bytes_written", "commands_done")


class Counters(wiring.Component):
    """64-bit counters of the running program. What happens in a cycle is counted three cycles later.

    The long paths that inputs come from end in a register, and so do their cause and the number to be added, so that an
    addition's carry has a cycle of its own.

    Members:
        clear: set all to 0, before ``running``
        running: count cycles and causes
        array: what happened to the array
        blocked, empty: of the MATMUL queue, to say why no MATMUL is being issued
        ending: the program has no more commands
        reads, writes: a beat moved, one bit a master
        finished: one bit an engine that finished a command in this cycle
        count_<name of a register>: its value
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "clear": In(1),
                "running": In(1),
                "array": In(ArrayStatus()),
                "blocked": In(len(Engine)),
                "empty": In(1),
                "ending": In(1),
                "reads": In(config.axi_masters),
                "writes": In(1),
                "finished": In(len(Engine)),
                **{f"count_{name}": Out(64) for name in COUNTS},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        array = {name: delay(m, getattr(self.array, name), 1, name) for name in ArrayStatus().members}
        blocked, empty = delay(m, self.blocked, 1, "blocked"), delay(m, self.empty, 1, "empty")
        ending, running = delay(m, self.ending, 1, "ending"), delay(m, self.running, 1, "running")
        order = (
            (array["busy"], "array_busy"),
            (array["stall_epilogue"], "stall_epilogue"),
            (~array["idle"], "stall_matmul"),
            *((blocked[engine], f"stall_{engine.name.lower()}") for engine in Engine if engine != Engine.MATMUL),
            (blocked[Engine.MATMUL] | ~empty, "stall_matmul"),
            (ending, "stall_store"),
        )
        counts = {name: Signal(name=f"counts_{name}") for name in CAUSES}
        earlier = Const(0)
        m.d.sync += [count.eq(0) for count in counts.values()]
        for condition, name in order:
            with m.If(running & condition & ~earlier):
                m.d.sync += counts[name].eq(1)
            earlier = earlier | condition
        m.d.sync += counts["stall_command"].eq(running & ~earlier)
        counts["cycles"] = delay(m, running, 1, "counts_cycles")
        for name, count in counts.items():
            counter = getattr(self, f"count_{name}")
            with m.If(count):
                m.d.sync += counter.eq(counter + 1)

        beat_bits = exact_log2(self._config.axi_bytes)
        for name, bits, unit in (
            ("bytes_read", self.reads, beat_bits),
            ("bytes_written", self.writes, beat_bits),
            ("commands_done", self.finished, 0),
        ):
            number = Signal(range(len(bits) + 1), name=f"adds_{name}")
            counter = getattr(self, f"count_{name}")
            m.d.sync += [
                number.eq(sum((bit for bit in delay(m, bits, 1, name)), start=0)),
                counter[unit:].eq(counter[unit:] + number),
            ]
        # A cycle late, before the first count can come.
        for part, clear in enumerate(copies(m, self.clear, 2, "clear")):
            with m.If(clear):
                m.d.sync += [getattr(self, f"count_{name}").eq(0) for name in COUNTS[part::2]]
        return m
