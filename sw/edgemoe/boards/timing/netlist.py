"""Reads a mapped netlist from RTLIL, the form that ``write_rtlil`` of Yosys prints, line by line."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgemoe.errors import SynthesisError

__all__ = ["Cell", "Netlist", "read_cells"]

#: A constant, or a pin that is not connected, in a list of bits.
NO_BIT = -1

_PARAMETER = re.compile(r"    parameter (?:signed |real )?(\S+) (.*)$")
_CONNECT = re.compile(r"  connect (\{.*?\}|\S+(?: \[[\d:]+\])?) (.*)$")
_OURS = re.compile(r"(edgemoe_hw/[^|\":]+\.py:\d+)")
_PYTHON = re.compile(r"([^/|\"]+/[^/|\"]+\.py:\d+)")
_PART = re.compile(r"(?P<name>[\\$]\S+)(?: \[(?P<high>\d+)(?::(?P<low>\d+))?\])?|(?P<width>\d+)'\S*|(?P<int>-?\d+)")


@dataclass(frozen=True)
class Cell:
    """One cell: ``ports`` has the bits of each pin, the lowest first, ``source`` its line in the Amaranth sources."""

    kind: str
    name: str
    source: str
    parameters: dict[str, str]
    ports: dict[str, list[int]]


@dataclass
class Netlist:
    """What is known of the bits of a flattened module; a bit is a number, counted on from wire to wire.

    Attributes:
        inputs, outputs: bits of the module's ports, with the port's name
    """

    inputs: list[tuple[str, list[int]]] = field(default_factory=list)
    outputs: list[tuple[str, list[int]]] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _sources: list[str] = field(default_factory=list)
    _bases: list[int] = field(default_factory=list)
    _wires: dict[str, tuple[int, int]] = field(default_factory=dict)
    _aliases: list[tuple[list[int], list[int]]] = field(default_factory=list)
    bits: int = 0

    def add_wire(self, name: str, width: int, source: str) -> None:
        self._wires[name] = (self.bits, width)
        self._names.append(name)
        self._sources.append(source)
        self._bases.append(self.bits)
        self.bits += width

    def add_alias(self, left: str, right: str) -> None:
        """A statement ``connect left right``."""
        self._aliases.append((self.find(left), self.find(right)))

    def find(self, text: str) -> list[int]:
        """The bits of a signal, as RTLIL prints it, the lowest first."""
        found: list[int] = []
        parts = list(_PART.finditer(text))
        for part in reversed(parts):
            name, high, low, width, integer = part.groups()
            if name is None:
                found += [NO_BIT] * (int(width) if integer is None else 32)
                continue
            try:
                base, size = self._wires[name]
            except KeyError:
                raise SynthesisError(f"the netlist has no wire {name}: is it complete?") from None
            if high is None:
                found += range(base, base + size)
            else:
                found += range(base + int(low or high), base + int(high) + 1)
        return found

    def drivers(self) -> NDArray[np.int32]:
        """For each bit the one that it is another name of: itself, or what drives it."""
        same = np.arange(self.bits, dtype=np.int32)
        for left, right in self._aliases:
            for alias, bit in zip(left, right, strict=True):
                if alias != NO_BIT and bit != NO_BIT:
                    same[alias] = bit
        while True:
            further = same[same]
            if np.array_equal(further, same):
                return same
            same = further

    def wire_of(self, bit: int) -> tuple[str, int | None, str]:
        """Name of a bit's wire, its index there (None: the only one), and the wire's line in the sources."""
        wire = bisect_right(self._bases, bit) - 1
        width = self._wires[self._names[wire]][1]
        return self._names[wire], None if width == 1 else bit - self._bases[wire], self._sources[wire]


def read_cells(lines: Iterable[str], netlist: Netlist, top: str = "edgemoe") -> Iterator[Cell]:
    """The cells of module ``top``; ``netlist`` learns its wires, which RTLIL has before them, and its other names.

    Raises:
        SynthesisError: no such module
    """
    rest = iter(lines)
    if not any(line.rstrip() == f"module \\{top}" for line in rest):
        raise SynthesisError(f"the netlist has no module {top}")
    source = kind = name = line_of_cell = ""
    parameters: dict[str, str] = {}
    ports: dict[str, list[int]] = {}
    for line in rest:
        if line.startswith("    connect "):
            _, pin, signal = line.strip().split(" ", 2)
            ports[pin.lstrip("\\")] = netlist.find(signal)
        elif line.startswith("    parameter "):
            parameter, value = _PARAMETER.match(line).groups()  # type: ignore[union-attr]
            parameters[parameter.lstrip("\\")] = value.strip('"').strip()
        elif line.startswith("  cell "):
            _, kind, name = line.split()
            parameters, ports, line_of_cell, source = {}, {}, source, ""
        elif line.startswith("  end") and kind:
            yield Cell(kind.lstrip("\\"), name, line_of_cell, parameters, ports)
            kind = ""
        elif line.startswith("  wire "):
            _read_wire(line, source, netlist)
            source = ""
        elif line.startswith("  attribute \\src "):
            source = _python_line(line)
        elif line.startswith("  connect "):
            netlist.add_alias(*_CONNECT.match(line).groups())  # type: ignore[union-attr]
        elif line.startswith("end"):
            return


def _read_wire(line: str, source: str, netlist: Netlist) -> None:
    words = line.split()
    options = dict(zip(words[1:-1], words[2:-1], strict=False))
    name = words[-1]
    netlist.add_wire(name, int(options.get("width", 1)), source)
    for option, ports in (("input", netlist.inputs), ("output", netlist.outputs)):
        if option in options:
            ports.append((name.lstrip("\\"), netlist.find(name)))


def _python_line(attribute: str) -> str:
    """Of the sources that an attribute lists, the first in Python: a file of this project's, or one of Amaranth's."""
    found: list[str] = _OURS.findall(attribute) or _PYTHON.findall(attribute)
    return found[0] if found else ""
