"""Tables as text: aligned columns without lines, the same on a terminal, in a pipe and in a file.

No cell is ever cut or broken. A table is as wide as its contents; the tables of this package stay within 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["TextTable", "loss_text", "short_name"]


@dataclass
class TextTable:
    """Rows of text under a header.

    Attributes:
        title: a line above; none where it is empty
        columns: the header's cells; one that begins with ``>`` (not shown) has its column's cells on the right
        rows: their cells, as many as there are columns; a text alone is a heading of the rows that follow
        caption: lines below; none where it is empty
        gap: spaces between columns
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str] | str] = field(default_factory=list)
    caption: str = ""
    gap: int = 2

    def add(self, *cells: str) -> None:
        """Append a row.

        Raises:
            ValueError: it has not a cell for each column
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"a row must have {len(self.columns)} cells, not {len(cells)}")
        self.rows.append(cells)

    def heading(self, text: str) -> None:
        """Append a heading of the rows that follow."""
        self.rows.append(text)

    def header(self) -> str:
        """The names of the columns, aligned like the rows."""
        return self._line(self._names())

    def lines(self) -> list[str]:
        """The whole table."""
        return [*filter(None, [self.title]), self.header(), *self._body(), *self.caption.splitlines()]

    def _body(self) -> Iterator[str]:
        for row in self.rows:
            yield row if isinstance(row, str) else self._line(row)

    def _names(self) -> list[str]:
        return [name.removeprefix(">") for name in self.columns]

    def _line(self, cells: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if name.startswith(">") else cell.ljust(width)
            for name, width, cell in zip(self.columns, self._widths(), cells, strict=True)
        )
        return (" " * self.gap).join(aligned).rstrip()

    def _widths(self) -> list[int]:
        cells = [self._names(), *(row for row in self.rows if not isinstance(row, str))]
        return [max(map(len, column)) for column in zip(*cells, strict=True)]


def short_name(phase: str) -> str:
    """A phase or layer for a table: ``blocks.3.attention`` as ``3.attention``, ``heads.depth`` as ``depth``."""
    return phase.removeprefix("blocks.").removeprefix("heads.")


def loss_text(value: float) -> str:
    """A loss with its sign, in at most five characters below 1000."""
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:+.{digits}f}"
