"""Assumed delays of wires, and factors of speed grades: what an estimate before placement cannot know."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemoe.errors import SynthesisError

__all__ = ["GRADES", "Grade", "NetModel", "grade_of"]


@dataclass(frozen=True)
class NetModel:
    """Delay of a net, in terms of a 7 series FPGA of grade -1.

    Attributes:
        base: ns to each of up to ``near`` loads
        growth: of that, more for each doubling of loads beyond
    """

    base: float = 0.7
    growth: float = 0.18
    near: int = 4

    def delays(self, loads: NDArray[np.int64]) -> NDArray[np.float64]:
        """ns to each load of nets with so many ``loads``."""
        doublings = np.log2(np.maximum(loads, self.near) / self.near)
        return np.asarray(self.base * (1 + self.growth * doublings), dtype=np.float64)

    def __str__(self) -> str:
        if not self.growth:
            return f"{self.base:g} ns a net"
        return f"{self.base:g} ns a net up to {self.near} loads, {100 * self.growth:g} % more for each doubling beyond"


@dataclass(frozen=True)
class Grade:
    """A speed grade: ``factor`` on every delay, cells and nets."""

    family: str
    name: str
    factor: float
    source: str


_DS925 = (
    "DSP48E1 without MREG, ADREG, either, as Project X-Ray has it (257, 289, 191 MHz), over the Fmax of a DSP48E2 in "
    "AMD DS925 1.30; mean, rounded up"
)
#: By family (Yosys' name) and speed grade.
GRADES = {
    (grade.family, grade.name): grade
    for grade in (
        Grade("xc7", "-1", 1.0, "Project X-Ray's slow corner is this grade"),
        Grade("xcup", "-2", 0.49, f"{_DS925}; 0.85 V: 544, 565, 410 MHz"),
        Grade("xcup", "-1", 0.59, f"{_DS925}; 0.85 V: 456, 468, 338 MHz"),
        Grade("xcup", "-2LV", 0.61, f"{_DS925}; 0.72 V: 440, 453, 323 MHz"),
    )
}
_PART = re.compile(r"-(\d(?:LV)?)(?:-[a-z])?$")


def grade_of(family: str, part: str) -> Grade:
    """The speed grade of a part, as AMD writes it at the end of its name.

    Raises:
        SynthesisError: the part names none, or one whose factor is not known
    """
    found = _PART.search(part)
    grade = GRADES.get((family, f"-{found[1]}")) if found else None
    if grade is None:
        known = ", ".join(f"{name} of {of}" for of, name in GRADES)
        raise SynthesisError(f"no delays are known of the speed grade of {part!r} ({family}); known: {known}")
    return grade
