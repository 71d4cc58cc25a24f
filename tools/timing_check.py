"""How far the estimate's model of nets is from what place and route found: an ECP5 design, cell by cell the same.

Usage: ``python tools/timing_check.py FILE.sdf [--base NS] [--growth SHARE] [--paths N]``

``make fit`` leaves the file (``build/fit/ulx3s.sdf``): delays of all cells and of all routed wires. All paths are timed
twice, with the routed wires and with the model of ``make timing`` in their place; cells have nextpnr's delays in both.
So the comparison is of the model of nets alone: by how much it is off, and whether it puts paths into the right order.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgemoe.boards.timing.graph import Builder, Graph
from edgemoe.boards.timing.netlist import Netlist
from edgemoe.boards.timing.nets import NetModel
from edgemoe.boards.timing.sdf import CLOCK, Arc, Check, Wire, read_sdf

__all__ = ["Comparison", "compare", "main"]

# Wires of their own: carry to carry, and within a slice from its LUTs to its multiplexers.
_DEDICATED = re.compile(r"/(FCI|FXA|FXB|F1|M)$")
_INDEX = re.compile(r"\[\d+\]|_TRELLIS\w*.*|\$\d+|\d+")
_BINS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 1 << 30))


@dataclass(frozen=True)
class Comparison:
    """Slowest period of each register, ns, in both; and the wires' delays by the number of their loads.

    Attributes:
        routed, modelled: by register, without numbers
        nets: loads at least, at most, wires that leave a slice, their mean and 95th percentile when routed, and the
            model's delay
    """

    routed: dict[str, float]
    modelled: dict[str, float]
    nets: list[tuple[int, int, int, float, float, float]]

    @property
    def ratio(self) -> float:
        """The modelled period over the routed one."""
        return max(self.modelled.values()) / max(self.routed.values())

    @property
    def correlation(self) -> float:
        """Spearman's, of the order of all registers."""
        names = sorted(self.routed)
        if len(names) < 2:
            return 1.0
        routed, modelled = (
            np.argsort(np.argsort([table[name] for name in names])) for table in (self.routed, self.modelled)
        )
        return float(np.corrcoef(routed, modelled)[0, 1])

    def common(self, count: int) -> int:
        """How many of the ``count`` slowest registers are among the slowest of both."""
        return len(set(_slowest(self.routed, count)) & set(_slowest(self.modelled, count)))


def _is_clock(pin: str) -> bool:
    return CLOCK.fullmatch(pin.rpartition("/")[2]) is not None


def _slowest(periods: dict[str, float], count: int) -> list[str]:
    return sorted(periods, key=lambda name: -periods[name])[:count]


def compare(lines: Iterable[str], model: NetModel) -> Comparison:
    """Time a routed design with its wires and with ``model`` instead."""
    items = list(read_sdf(lines))
    # nextpnr prints a wire once for each edge.
    wires = {(item.begin, item.end): item.ns for item in items if isinstance(item, Wire) and not _is_clock(item.end)}
    loads = Counter(begin for begin, _ in wires)
    assumed = {begin: float(model.delays(np.array([count]))[0]) for begin, count in loads.items()}
    modelled = {(begin, end): 0.0 if _DEDICATED.search(end) else assumed[begin] for begin, end in wires}
    nets = []
    for least, most in _BINS:
        chosen = [wire for wire in wires if wires[wire] > 0 and least <= loads[wire[0]] <= most]
        if chosen:
            delays = np.array([wires[wire] for wire in chosen])
            mean = float(np.mean([assumed[begin] for begin, _ in chosen]))
            nets.append((least, most, len(chosen), float(delays.mean()), float(np.percentile(delays, 95)), mean))
    return Comparison(_periods(items, wires), _periods(items, modelled), nets)


def _periods(items: list[Arc | Check | Wire], wires: dict[tuple[str, str], float]) -> dict[str, float]:
    """The slowest period of each register, with these delays of wires."""
    numbers: dict[str, int] = {}
    netlist, builder = Netlist(), Builder()

    def pin(name: str) -> int:
        if name not in numbers:
            numbers[name] = len(numbers)
            netlist.add_wire(name, 1, "")
        return numbers[name]

    def arc(begin: str, end: str, ns: float) -> None:
        builder.tails.append(pin(begin))
        builder.heads.append(pin(end))
        builder.delays.append(ns)
        builder.arc_cells.append(0)
        builder.dedicated.append(0)

    ends: list[str] = []
    for (begin, end), ns in wires.items():
        arc(begin, end, ns)
    for item in items:
        if isinstance(item, Arc) and item.clocked:
            builder.start_bits.append(pin(f"{item.cell}/{item.end}"))
            builder.start_delays.append(item.ns)
            builder.start_cells.append(0)
        elif isinstance(item, Arc):
            arc(f"{item.cell}/{item.begin}", f"{item.cell}/{item.end}", item.ns)
        elif isinstance(item, Check):
            builder.end_bits.append(pin(f"{item.cell}/{item.pin}"))
            builder.end_setups.append(item.ns)
            builder.end_cells.append(len(ends))
            builder.end_pins.append(0)
            builder.end_dedicated.append(0)
            ends.append(item.cell)
    graph = Graph(builder, netlist, NetModel(0.0, 0.0), 1.0)
    found: dict[str, float] = {}
    for name, period in zip(ends, graph.periods, strict=True):
        if period > 0:
            group = _INDEX.sub("", name.replace("\\", ""))
            found[group] = max(found.get(group, 0.0), float(period))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the model of nets with routed wires.")
    parser.add_argument("file", type=Path, help="SDF file of nextpnr")
    parser.add_argument("--base", type=float, default=NetModel().base, help="ns of a short net")
    parser.add_argument("--growth", type=float, default=NetModel().growth, help="more for each doubling of loads")
    parser.add_argument("--paths", type=int, default=10)
    options = parser.parse_args(arguments)
    with options.file.open(encoding="utf-8") as lines:
        found = compare(lines, NetModel(options.base, options.growth))
    print("loads        wires   routed: mean   95 %    model")
    for least, most, wires, mean, high, assumed in found.nets:
        print(f"{least:>4}..{most if most < 1 << 30 else '':<6} {wires:>6} {mean:>14.2f} {high:>6.2f} {assumed:>8.2f}")
    print(f"slowest period: routed {max(found.routed.values()):.2f} ns, modelled {max(found.modelled.values()):.2f} ns")
    print(f"modelled / routed: {found.ratio:.2f}; order of {len(found.routed)} registers: {found.correlation:.2f}")
    print(f"of the {options.paths} slowest, {found.common(options.paths)} are the same")
    for name in _slowest(found.routed, options.paths):
        place = sorted(found.modelled.values(), reverse=True).index(found.modelled[name]) + 1
        print(f"  routed {found.routed[name]:6.2f} ns, modelled {found.modelled[name]:6.2f} ns (place {place}): {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
