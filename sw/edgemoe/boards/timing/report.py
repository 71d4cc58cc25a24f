"""An estimate of a mapped netlist's clock, and its slowest paths by register and line of the sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemoe.boards.timing.graph import PORT, Builder, End, Graph
from edgemoe.boards.timing.netlist import NO_BIT, Netlist, read_cells
from edgemoe.boards.timing.nets import Grade, NetModel
from edgemoe.errors import SynthesisError

__all__ = ["ESTIMATE", "timing_of", "timing_of_file"]

ESTIMATE = "an estimate before placement: cells by their sources, nets by a model, no clock skew or uncertainty"
_PREFIX = re.compile(r"^\\?(?:system\.)?(?:top\.)?")
_MAPPED = re.compile(r"(?:[.$]_?TECHMAP|\$__|\.genblk|\$auto|\.memory\.\d|\.\$\w+\$).*")
_DIGITS = re.compile(r"\d+")


def timing_of_file(path: Path, grade: Grade, model: NetModel | None = None, **options: Any) -> dict[str, Any]:
    """``timing_of`` of a file that Yosys' ``write_rtlil`` made."""
    with path.open(encoding="utf-8") as lines:
        return timing_of(lines, grade, model, **options)


def timing_of(
    lines: Iterable[str],
    grade: Grade,
    model: NetModel | None = None,
    *,
    paths: int = 10,
    top: str = "edgemoe",
    ports: bool = True,
) -> dict[str, Any]:
    """Estimate the clock of a mapped netlist, and name its slowest paths.

    Args:
        lines: of RTLIL, one flattened module
        grade: of the FPGA, whose factor is on every delay
        model: of the nets, by default ``NetModel()``
        paths: how many; each ends in another register (bits and numbers in its name do not count)
        top: name of the module
        ports: count paths from and to the module's ports too, as if AXI ports of the processing system were there

    Returns:
        ``fmax_mhz``, ``period_ns``, ``paths`` (see ``_path``), ``net_model``, ``grade``, ``ends`` (how many inputs of
        registers there are by the whole ns that they need) and ``estimate``, what all this is

    Raises:
        SynthesisError: a cell's delays are not known, signals go in circles, or there are no registers
    """
    model = model or NetModel()
    netlist, builder = Netlist(), Builder()
    for cell in read_cells(lines, netlist, top):
        builder.add(cell)
    if ports:
        builder.add_ports(netlist)
    graph = Graph(builder, netlist, model, grade.factor)
    found = _slowest(graph, builder, netlist, paths)
    if not found:
        raise SynthesisError("no path ends in a register")
    period = found[0]["ns"]
    counted = Counter(int(period) for period in graph.periods if period >= 0)
    return {
        "fmax_mhz": round(1000 / period, 1),
        "period_ns": period,
        "paths": found,
        "net_model": {"text": str(model), **asdict(model), "factor": grade.factor},
        "grade": asdict(grade),
        "ends": {str(whole): counted[whole] for whole in sorted(counted)},
        "estimate": ESTIMATE,
    }


def _slowest(graph: Graph, builder: Builder, netlist: Netlist, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    seen = set()
    for end in graph.worst_first():
        name = _end_name(end, graph, builder, netlist)
        group = _DIGITS.sub("#", name)
        if group in seen:
            continue
        seen.add(group)
        found.append(_path(end, name, graph, builder, netlist))
        if len(found) == count:
            break
    return found


def _path(end: End, name: str, graph: Graph, builder: Builder, netlist: Netlist) -> dict[str, Any]:
    """One path.

    Returns:
        ``ns``, of them ``logic_ns`` and ``nets_ns``; ``levels`` (cells passed between the registers), ``most_loads``
        (of a net on it); ``from`` and ``to`` (registers), ``pin`` (of the second); ``from_source`` and ``to_source``
        (where they are made), ``through`` (signals on the way that have a name), ``cells`` (their types) and
        ``sources`` (lines that signals and cells are from)
    """
    if end.bit == NO_BIT:
        source = builder.sources[end.cell]
        return {
            **{"ns": round(end.period, 3), "logic_ns": round(end.period, 3), "nets_ns": 0.0, "levels": 0},
            **{"most_loads": 0, "from": name, "to": name, "pin": "inside", "from_source": source, "to_source": source},
            **{"through": [], "cells": [builder.kinds[end.cell]], "sources": [source] if source else []},
        }
    steps = graph.path_to(end.bit)
    logic, nets = graph.shares(steps, end)
    signals = [step for step in steps if step.bit < netlist.bits]
    through = [netlist.wire_of(step.bit) for step in signals[1:]]
    begun = signals[0]
    begin, begin_source = _register(begun.bit, begun.cell, builder, netlist)
    sources = [begin_source]
    for step, (_, _, source) in zip(signals[1:], through, strict=True):
        sources += [builder.sources[step.cell], source]
    to_source = _end_source(end, graph, builder, netlist)
    return {
        "ns": round(end.period, 3),
        "logic_ns": round(logic, 3),
        "nets_ns": round(nets, 3),
        "levels": len({step.cell for step in steps[1:]}),
        "most_loads": max(int(graph.loads[step.bit]) for step in signals),
        "from": begin,
        "to": name,
        "pin": end.pin,
        "from_source": begin_source,
        "to_source": to_source,
        "through": list(dict.fromkeys(_PREFIX.sub("", wire) for wire, _, _ in through if wire.startswith("\\"))),
        "cells": [builder.kinds[step.cell] if step.cell != PORT else "port" for step in signals],
        "sources": [source for source in dict.fromkeys([*sources, to_source]) if source],
    }


def _register(bit: int, cell: int, builder: Builder, netlist: Netlist) -> tuple[str, str]:
    """Name and source line of what drives ``bit`` behind the clock."""
    wire, _, source = netlist.wire_of(bit)
    if cell == PORT:
        return f"port {_PREFIX.sub('', wire)}", source
    kind = builder.kinds[cell]
    if kind.startswith("FD"):
        return _PREFIX.sub("", wire), _ours(builder.sources[cell], source)
    named = builder.names[cell].startswith("$auto") and wire.startswith("\\")  # a shift register has only its output's
    name = _PREFIX.sub("", wire) if named else _cell_name(builder.names[cell])
    return f"{kind} {name}", _ours(source, builder.sources[cell])


def _end_name(end: End, graph: Graph, builder: Builder, netlist: Netlist) -> str:
    if end.cell == PORT:
        return f"port {end.pin}"
    bit = graph.output_of(end.cell)
    if bit == NO_BIT:
        return f"{builder.kinds[end.cell]} {_cell_name(builder.names[end.cell])}"
    return _register(bit, end.cell, builder, netlist)[0]


def _end_source(end: End, graph: Graph, builder: Builder, netlist: Netlist) -> str:
    if end.cell == PORT:
        return netlist.wire_of(end.bit)[2]
    bit = graph.output_of(end.cell)
    return builder.sources[end.cell] if bit == NO_BIT else _register(bit, end.cell, builder, netlist)[1]


def _ours(first: str, second: str) -> str:
    """The one of two sources that is of this project, rather the first."""
    return second if second.startswith("edgemoe_hw/") and not first.startswith("edgemoe_hw/") else first or second


def _cell_name(name: str) -> str:
    """A cell's unit, and what it is there: without what Yosys adds."""
    short = _MAPPED.sub("", _PREFIX.sub("", name.removeprefix("$flatten").replace("\\", "")))
    return short.strip(".") or name
