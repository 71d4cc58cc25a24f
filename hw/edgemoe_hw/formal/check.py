"""A unit under proof: its free inputs, what is assumed of them, and what must hold.

A check is a circuit of its own around the unit. Every claim, assumption and cover is one bit of it, an output port, so
any tool that reads RTLIL can decide them; ``tools/formal.py`` does. The reset is a free input too: trackers and units
are reset together, at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, SimpleNamespace
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Module, Mux, ResetSignal, ShapeLike, Signal, Value, ValueLike
from amaranth.lib import wiring

__all__ = ["TOP_NAME", "Check", "Claim", "opened"]

TOP_NAME = "check"


@dataclass(frozen=True)
class Claim:
    """One bit that must be 1 in every cycle; of a cover: that can be.

    Attributes:
        port: its output port
        name: short; empty for an invariant, which only helps an induction
        says: what is claimed, a sentence
    """

    port: str
    name: str
    says: str


class Check:
    """Collects what a proof is about.

    Args:
        unit: what is proved of, for the table
        steps: k of the k-induction: cycles in which all claims hold before the one in which they must
        depth: cycles within which each cover must be reached, and in which a counterexample is looked for when an
            induction fails

    Attributes:
        m: the circuit
        constants: free inputs that keep one value for ever
        claims, covers: in the order in which they were made
        assumptions: output ports that are 1 in every cycle
    """

    def __init__(self, unit: str, *, steps: int = 1, depth: int = 20):
        self.unit, self.steps, self.depth = unit, steps, depth
        self.m = Module()
        self.constants: list[str] = []
        self.claims: list[Claim] = []
        self.covers: list[Claim] = []
        self.assumptions: list[str] = []
        self._ports: dict[str, Signal] = {}

    def free(self, name: str, shape: ShapeLike = 1, *, constant: bool = False) -> Any:
        """A new input, any value in every cycle; ``constant``: any one value."""
        self._ports[name] = signal = Signal(len(Signal(shape)), name=name)
        if constant:
            self.constants.append(name)
        value = Signal(shape, name=f"{name}_value")
        self.m.d.comb += Value.cast(value).eq(signal)
        return value

    def show(self, name: str, value: ValueLike) -> None:
        """Have ``value`` in the traces of counterexamples."""
        cast = Value.cast(value)
        self._ports[name] = port = Signal(len(cast), name=name)
        self.m.d.comb += port.eq(cast)

    def add(self, unit: wiring.Component, *, constants: Collection[str] = ()) -> None:
        """Put ``unit`` in, each of its inputs free (``constants``: with one value for ever), and show its outputs."""
        self.m.submodules.dut = unit
        for path, member, value in unit.signature.flatten(unit):
            port = "_".join(str(part) for part in path)
            if member.flow == wiring.In:
                self.m.d.comb += Value.cast(value).eq(
                    self.free(port, len(Value.cast(value)), constant=port in constants)
                )
            else:
                self.show(port, value)

    def _bit(self, kind: str, value: ValueLike) -> str:
        name = f"{kind}_{sum(port.startswith(kind) for port in self._ports)}"
        self.show(name, Value.cast(value).any())
        return name

    def assume(self, value: ValueLike) -> None:
        """What the unit's surroundings promise: ``value`` in every cycle."""
        self.assumptions.append(self._bit("assume", value))

    def always(self, name: str, says: str, value: ValueLike) -> None:
        """Claim ``value`` for every cycle."""
        self.claims.append(Claim(self._bit("claim", value), name, says))

    def invariant(self, value: ValueLike) -> None:
        """What else holds in every cycle, and is proved with the claims because their induction needs it."""
        self.claims.append(Claim(self._bit("claim", value), "", ""))

    def cover(self, name: str, value: ValueLike) -> None:
        """A cycle with ``value`` must be reachable, or the claims may be true of nothing."""
        self.covers.append(Claim(self._bit("cover", value), name, ""))

    def past(self, value: ValueLike, cycles: int = 1) -> Value:
        """``value`` as it was; 0 since a reset."""
        for _ in range(cycles):
            register = Signal.like(Value.cast(value), name="past", init=0)
            self.m.d.sync += register.eq(value)
            value = register
        return Value.cast(value)

    def counter(self, bits: int, up: ValueLike, down: ValueLike = 0, name: str = "counter") -> Signal:
        """Cycles with ``up`` less those with ``down``."""
        count = Signal(bits, name=name)
        self.m.d.sync += count.eq(count + Value.cast(up).any() - Value.cast(down).any())
        return count

    def cycles_since(self, since: ValueLike, most: int) -> Signal:
        """Cycles since the last one with ``since`` or a reset, counted up to ``most``."""
        count = Signal(range(most + 1))
        self.m.d.sync += count.eq(Mux(since, 0, Mux(count == most, count, count + 1)))
        return count

    def stable(self, stream: Any, *, but: ValueLike = 0) -> Value:
        """A stream that was not ready keeps its valid and its payload."""
        waited = self.past(stream.valid & ~stream.ready & ~Value.cast(but))
        payload = Value.cast(stream.payload)
        return ~waited | (Value.cast(stream.valid) & (payload == self.past(payload)))

    def rtlil(self) -> str:
        """The circuit, as Yosys reads it; module ``TOP_NAME``."""
        clk, rst = Signal(name="domain_clk"), Signal(name="domain_rst")
        self.m.domains.sync = ClockDomain()
        self.m.d.comb += [ClockSignal().eq(clk), ResetSignal().eq(rst)]
        return str(rtlil.convert(self.m, name=TOP_NAME, ports=[clk, rst, *self._ports.values()]))


def opened(unit: wiring.Component) -> SimpleNamespace:
    """Elaborate ``unit`` now; return the local variables of its ``elaborate`` and of the methods that this calls.

    What was looked into is what a check then has inside. So a proof names a unit's registers as its source does;
    Amaranth's own names of signals depend on the Python. ``methods`` has the variables of each method by its name, for
    names that several have; ``fsm`` is the unit's state machine, if it has one.
    """
    methods: dict[str, SimpleNamespace] = {}
    with _on_return(unit, methods):
        module = unit.elaborate(None)
    setattr(unit, "elaborate", lambda platform: module)  # noqa: B010 (a method of one object)
    found = SimpleNamespace(methods=methods, fsm=module._generated.get("fsm"))
    for local in methods.values():
        vars(found).update(vars(local))
    return found


@contextmanager
def _on_return(unit: object, methods: dict[str, SimpleNamespace]) -> Iterator[None]:
    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "return" and frame.f_locals.get("self") is unit:
            methods[frame.f_code.co_name] = SimpleNamespace(**frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
