"""Which unit of the accelerator the cells of a flattened, mapped netlist belong to."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator

__all__ = ["cells_by_unit"]

_CELL = re.compile(r"^  cell \\(\S+) (\S+)\n((?:    .*\n)*)  end$", re.MULTILINE)
_CONNECT = re.compile(r"^    connect \\(\S+) (.*)$", re.MULTILINE)
_WIDTH = re.compile(r"^  wire .*?width (\d+) .*?(\S+)$", re.MULTILINE)
_BITS = re.compile(r"([\\$]\S+)(?: \[(\d+)(?::(\d+))?\])?")
_PATH = re.compile(r"top\.((?:\\?[\w$]+\.)*)")
_LOGIC = re.compile(r"LUT\d|INV|CARRY\d|MUXF\d")
_OUTPUTS = {"O", "CO"}
_FLIP_FLOP = re.compile(r"[FL]D")


def cells_by_unit(netlist: str, depth: int = 2) -> dict[str, Counter[str]]:
    """Count cells by unit and type.

    A memory or DSP is called after its unit, a flip-flop's output too. Logic has lost its names (it is optimized
    across units): it counts for the unit of the nearest of those that it drives.

    Args:
        netlist: one flattened module, as ``write_rtlil`` prints it
        depth: levels of the hierarchy; deeper units count in theirs

    Returns:
        cells by type, by the unit's path (``compute.norm``); ``""`` is what drives only ports, or nothing with a name
    """
    widths = {name: int(width) for width, name in _WIDTH.findall(netlist)}
    kinds: list[str] = []
    inputs: list[list[tuple[str, int]]] = []
    units: list[str | None] = []
    driver: dict[tuple[str, int], int] = {}
    for kind, name, body in _CELL.findall(netlist):
        cell = len(kinds)
        kinds.append(kind)
        ports = dict(_CONNECT.findall(body))
        if _LOGIC.match(kind):
            units.append(None)
            for port in _OUTPUTS & ports.keys():
                driver.update((bit, cell) for bit in _bits(ports[port], widths))
        else:
            units.append(_unit(ports["Q"] if _FLIP_FLOP.match(kind) else name, depth))
        inputs.append([bit for port, spec in ports.items() if port not in _OUTPUTS for bit in _bits(spec, widths)])

    near = deque(cell for cell, unit in enumerate(units) if unit)
    while near:
        cell = near.popleft()
        for bit in inputs[cell]:
            source = driver.get(bit)
            if source is not None and units[source] is None:
                units[source] = units[cell]
                near.append(source)

    found: dict[str, Counter[str]] = {}
    for kind, unit in zip(kinds, units, strict=True):
        found.setdefault(unit or "", Counter())[kind] += 1
    return found


def _unit(name: str, depth: int) -> str:
    path = _PATH.search(name)
    return ".".join(path[1].replace("\\", "").split(".")[:depth]).strip(".") if path else ""


def _bits(spec: str, widths: dict[str, int]) -> Iterator[tuple[str, int]]:
    """The single bits of a signal."""
    for name, high, low in _BITS.findall(spec):
        first, last = (int(low or high), int(high)) if high else (0, widths.get(name, 1) - 1)
        for index in range(first, last + 1):
            yield name, index
