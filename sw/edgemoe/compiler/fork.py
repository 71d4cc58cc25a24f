"""Where the tasks of a frame part: each gets a residual stream of its own, a copy of the trunk's."""

from __future__ import annotations

from edgemoe.compiler.builder import Builder, Region
from edgemoe.compiler.packing import DramObject
from edgemoe.compiler.sequences import TokenSequences
from edgemoe.layout import align
from edgemoe_hw.spec.isa import Base, Store

__all__ = ["ResidualCopy"]


class ResidualCopy:
    """Copies the residual stream of the trunk to the places of the other tasks, by way of DRAM.

    A STORE writes whole rows one after the other, while a LOAD reads them in slices, one a master, each from a plane of
    its own (docs/decisions/0005-slice-per-master.md). The slices of a single row lie as a LOAD of one row wants them,
    so a row is a LOAD, unless one master loads the memory. They have all of an attention to hide behind.

    Args:
        builder: what emits
        residual: the residual stream of all places
        sequences: of the program

    Attributes:
        bytes: at the begin of the OUTPUT memory that the copy needs
    """

    def __init__(self, builder: Builder, residual: Region, sequences: TokenSequences) -> None:
        self.b, self.residual, self.sequences = builder, residual, sequences
        self._row_bytes = builder.config.row_bytes["RESIDUAL"]
        others = sequences.places > len(sequences.trunk)
        rows = len(sequences.trunk) * sequences.tokens * residual.stride
        self.bytes = align(rows * self._row_bytes) if others else 0

    def __call__(self) -> None:
        """Emit it; everything that is added to the trunk's residual stream until now is in the copies."""
        trunk = self.sequences.trunk
        for group in self.sequences.all_groups(trunk):
            row, rows = self.residual.row(group.first), group.count * self.residual.stride
            self.b.emit(Store(base=Base.OUTPUT, offset=row * self._row_bytes, row=row, rows=rows), "residual out")
        for place in range(len(trunk), self.sequences.places):
            for group in self.sequences.groups(place):
                source = self.residual.row(self.sequences.trunk_group(group).first)
                self._load(source, self.residual.row(group.first), group.count * self.residual.stride)

    def _load(self, source: int, row: int, rows: int) -> None:
        masters = self.b.config.load_masters("RESIDUAL")
        slice_bytes = self._row_bytes // masters
        stored = DramObject("RESIDUAL", source * self._row_bytes, slice_bytes, self._row_bytes, rows)
        at_once = rows if masters == 1 else 1
        for first in range(0, rows, at_once):
            self.b.load(stored, first, at_once, row + first, "residual in", Base.OUTPUT)
