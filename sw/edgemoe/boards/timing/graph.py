"""Longest paths from register to register through cells and nets."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from sys import intern

import numpy as np
from numpy.typing import NDArray

from edgemoe.boards.timing.cells import CASCADE_INPUTS, CASCADE_OUTPUTS, IGNORED, PORT_IN, PORT_OUT, timing_of_cell
from edgemoe.boards.timing.model import ALL, CellTiming
from edgemoe.boards.timing.netlist import NO_BIT, Cell, Netlist
from edgemoe.boards.timing.nets import NetModel
from edgemoe.errors import SynthesisError

__all__ = ["PORT", "Builder", "End", "Graph", "Step"]

#: Number of the cell at the other end of a port.
PORT = -1
_NEVER = -1e9
_INNER = -2  # points inside cells are counted downwards from here until the number of bits is known

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """A point of a path: the signal ``bit``, when it is there (ns), and the cell that drives it."""

    bit: int
    arrival: float
    cell: int


@dataclass(frozen=True)
class End:
    """What a signal must reach before the clock.

    Attributes:
        period: that it asks for, ns
        bit: the signal; NO_BIT: a path inside the cell
        cell, pin: where it ends
        setup: of that, ns
    """

    period: float
    bit: int
    cell: int
    pin: str
    setup: float


class Builder:
    """Collects arcs, starts and ends from cells, one at a time."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.names: list[str] = []
        self.sources: list[str] = []
        self.pins: list[str] = []
        self.inside: list[tuple[float, int]] = []
        self.tails, self.heads, self.delays, self.arc_cells, self.dedicated = _arrays("iifib")
        self.start_bits, self.start_delays, self.start_cells = _arrays("ifi")
        self.end_bits, self.end_setups, self.end_cells, self.end_pins, self.end_dedicated = _arrays("ifiib")
        self.loads, self.cascades = _arrays("ii")
        self.points = 0
        self._known: dict[tuple[str, ...], CellTiming] = {}
        self._pin_numbers: dict[str, int] = {}

    def add(self, cell: Cell) -> None:
        """Raises SynthesisError for a cell whose delays are not known."""
        if IGNORED.match(cell.kind):
            return
        timing, number, ports = self._timing(cell), len(self.kinds), cell.ports
        self.kinds.append(intern(cell.kind))
        self.names.append(cell.name)
        self.sources.append(intern(cell.source))
        inner: dict[str, int] = {}
        inputs: set[str] = set()
        for pin, delay in timing.launches:
            for bit in ports.get(pin, ()):
                if bit != NO_BIT:
                    self.start_bits.append(bit)
                    self.start_delays.append(delay)
                    self.start_cells.append(number)
        for pin, setup in timing.captures:
            if pin in ports:
                inputs.add(pin)
                self._end(ports[pin], setup, number, pin)
        for (pin, index), (out, out_index), delay in timing.arcs:
            tails, heads = self._bits(ports, pin, index, inner), self._bits(ports, out, out_index, inner)
            if tails and heads:
                inputs.add(pin)
                dedicated = pin in CASCADE_INPUTS
                for tail in tails:
                    for head in heads:
                        self.tails.append(tail)
                        self.heads.append(head)
                        self.delays.append(delay)
                        self.arc_cells.append(number)
                        self.dedicated.append(dedicated)
        for pin in inputs:
            if pin not in CASCADE_INPUTS and not pin.startswith("@"):
                self.loads.extend(bit for bit in ports[pin] if bit != NO_BIT)
        for pin in CASCADE_OUTPUTS & ports.keys():
            self.cascades.extend(bit for bit in ports[pin] if bit != NO_BIT)
        if timing.inside:
            self.inside.append((timing.inside, number))

    def add_ports(self, netlist: Netlist) -> None:
        """The module's ports, as ends of the processing system's AXI ports."""
        for _, bits in netlist.inputs:
            for bit in bits:
                self.start_bits.append(bit)
                self.start_delays.append(PORT_OUT)
                self.start_cells.append(PORT)
        for name, bits in netlist.outputs:
            self._end(bits, PORT_IN, PORT, name)
            self.loads.extend(bits)

    def _end(self, bits: list[int], setup: float, cell: int, pin: str) -> None:
        if pin not in self._pin_numbers:
            self._pin_numbers[pin] = len(self.pins)
            self.pins.append(pin)
        for bit in bits:
            if bit != NO_BIT:
                self.end_bits.append(bit)
                self.end_setups.append(setup)
                self.end_cells.append(cell)
                self.end_pins.append(self._pin_numbers[pin])
                self.end_dedicated.append(pin in CASCADE_INPUTS)

    def _bits(self, ports: dict[str, list[int]], pin: str, index: int, inner: dict[str, int]) -> list[int]:
        if pin.startswith("@"):
            if pin not in inner:
                inner[pin] = _INNER - self.points
                self.points += 1
            return [inner[pin]]
        bits = ports.get(pin, [])
        chosen = bits if index == ALL else bits[index : index + 1]
        return [bit for bit in chosen if bit != NO_BIT]

    def _timing(self, cell: Cell) -> CellTiming:
        used = [item for item in cell.parameters.items() if not item[0].startswith(("INIT", "IS_"))]
        key = (cell.kind, *(text for item in sorted(used) for text in item))
        if key not in self._known:
            self._known[key] = timing_of_cell(cell.kind, cell.parameters)
        return self._known[key]


def _arrays(codes: str) -> Iterator[array]:  # type: ignore[type-arg]
    return (array(code) for code in codes)


class Graph:
    """Arrival times of all signals, ns; ``factor`` is on every delay."""

    def __init__(self, builder: Builder, netlist: Netlist, model: NetModel, factor: float) -> None:
        same = netlist.drivers()
        self._builder, self._nodes = builder, netlist.bits + builder.points

        def nodes(values: array) -> Integers:  # type: ignore[type-arg]
            bits = np.asarray(values, dtype=np.int64)
            inner = bits <= _INNER
            return np.where(inner, netlist.bits + _INNER - bits, same[np.where(inner, 0, bits)])

        loads = np.bincount(nodes(builder.loads), minlength=self._nodes)
        self.loads = loads
        self._net = factor * model.delays(loads)
        self._net[netlist.bits :] = 0.0
        cascade = np.zeros(self._nodes, dtype=bool)
        cascade[nodes(builder.cascades)] = True
        self._tail, self._head = nodes(builder.tails), nodes(builder.heads)
        self._cell = np.asarray(builder.arc_cells, dtype=np.int64)
        direct = np.asarray(builder.dedicated, dtype=bool) & cascade[self._tail]
        self._logic = factor * np.asarray(builder.delays, dtype=np.float64)
        self._weight = self._logic + np.where(direct, 0.0, self._net[self._tail])
        self._start, self._start_cell = nodes(builder.start_bits), np.asarray(builder.start_cells, dtype=np.int64)
        self._by_cell = np.argsort(self._start_cell, kind="stable")
        self._start_delay = factor * np.asarray(builder.start_delays, dtype=np.float64)
        self._by_head = np.argsort(self._head, kind="stable")
        self._first = np.searchsorted(self._head[self._by_head], np.arange(self._nodes + 1))
        self.arrival = self._arrivals()
        self._ends(builder, nodes(builder.end_bits), cascade, factor)

    def _arrivals(self) -> Floats:
        """Level by level, each node after everything that it depends on."""
        arrival = np.full(self._nodes, _NEVER)
        np.maximum.at(arrival, self._start, self._start_delay)
        waiting = np.bincount(self._head, minlength=self._nodes)
        order = np.argsort(self._tail, kind="stable")
        first = np.searchsorted(self._tail[order], np.arange(self._nodes + 1))
        level = np.flatnonzero(waiting == 0)
        while level.size:
            counts = first[level + 1] - first[level]
            offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            arcs = order[np.repeat(first[level], counts) + offsets]
            heads = self._head[arcs]
            np.maximum.at(arrival, heads, arrival[self._tail[arcs]] + self._weight[arcs])
            np.subtract.at(waiting, heads, 1)
            touched = np.unique(heads)
            level = touched[waiting[touched] == 0]
        if looped := int((waiting > 0).sum()):
            raise SynthesisError(f"{looped} signals depend on themselves: a loop without a register")
        return arrival

    def _ends(self, builder: Builder, bits: Integers, cascade: NDArray[np.bool_], factor: float) -> None:
        direct = np.asarray(builder.end_dedicated, dtype=bool) & cascade[bits]
        setups = factor * np.asarray(builder.end_setups, dtype=np.float64)
        periods = self.arrival[bits] + np.where(direct, 0.0, self._net[bits]) + setups
        inside = [(factor * period, cell) for period, cell in builder.inside]
        self._end_bits = np.concatenate([bits, np.full(len(inside), NO_BIT)])
        self._end_setups = np.concatenate([setups, [period for period, _ in inside]])
        self._end_cells = np.concatenate([np.asarray(builder.end_cells, dtype=np.int64), [cell for _, cell in inside]])
        self._end_pins = np.concatenate([np.asarray(builder.end_pins, dtype=np.int64), np.full(len(inside), -1)])
        self.periods: Floats = np.concatenate([periods, [period for period, _ in inside]])

    def worst_first(self) -> Iterator[End]:
        """All ends that a register or port leads to, the slowest first."""
        for index in np.argsort(-self.periods, kind="stable"):
            if self.periods[index] < 0:
                return
            pin, cell = int(self._end_pins[index]), int(self._end_cells[index])
            name = self._builder.pins[pin] if pin >= 0 else ""
            bit, setup = int(self._end_bits[index]), float(self._end_setups[index])
            yield End(float(self.periods[index]), bit, cell, name, setup)

    def path_to(self, bit: int) -> list[Step]:
        """The slowest path to ``bit``, from a register's output on."""
        steps = []
        while True:
            arrival = self.arrival[bit]
            arcs = self._by_head[self._first[bit] : self._first[bit + 1]]
            through = self.arrival[self._tail[arcs]] + self._weight[arcs]
            if not arcs.size or through.max() < arrival - 1e-9:
                begun = np.flatnonzero((self._start == bit) & (self._start_delay >= arrival - 1e-9))
                steps.append(Step(bit, float(arrival), int(self._start_cell[begun[0]])))
                return steps[::-1]
            arc = arcs[through.argmax()]
            steps.append(Step(bit, float(arrival), int(self._cell[arc])))
            bit = int(self._tail[arc])

    def shares(self, steps: list[Step], end: End) -> tuple[float, float]:
        """Of a path's period, what cells and what nets take."""
        nets = end.period - end.setup - steps[-1].arrival
        for before, step in zip(steps, steps[1:], strict=False):
            # A cascade's wire costs nothing; which arcs are such is only known of the arc.
            arcs = self._by_head[self._first[step.bit] : self._first[step.bit + 1]]
            same = arcs[(self._tail[arcs] == before.bit) & (self._cell[arcs] == step.cell)]
            nets += float((self._weight[same] - self._logic[same])[0])
        return end.period - nets, nets

    def output_of(self, cell: int) -> int:
        """A bit that a register drives; NO_BIT: none."""
        index = np.searchsorted(self._start_cell, cell, sorter=self._by_cell)
        found = index < self._by_cell.size and self._start_cell[self._by_cell[index]] == cell
        return int(self._start[self._by_cell[index]]) if found else NO_BIT
