"""Delays of a DSP48E1 by its registers, ns: ``zynq7/timings/DSP_L.sdf`` of Project X-Ray, without pattern detector.

A way that begins and ends inside the cell is in none of its lines, but follows from two that are there: from a register
all the way to P, less what is saved by ending earlier (``_SAVED``).
"""

from __future__ import annotations

from collections.abc import Iterable

from edgemoe.boards.timing.model import ALL, Arc, CellTiming, Parameters, number

__all__ = ["dsp_timing"]

# Set-up of a pin before the register that it meets first, and its delay to P ("out") where it meets none. "direct" goes
# through the multiplier, "added" through pre-adder and multiplier, "past" through neither.
_PINS = {
    "A": {
        **{"own": 0.362, "ad": 1.756, "direct m": 1.928, "direct p": 3.722, "direct out": 3.841},
        **{"added m": 3.288, "added p": 5.081, "added out": 5.201, "past p": 1.958, "past out": 2.077},
    },
    "B": {"own": 0.450, "direct m": 1.743, "direct p": 3.536, "direct out": 3.656, "past p": 1.938, "past out": 2.057},
    "C": {"own": 0.233, "past p": 1.701, "past out": 1.820},
    "D": {"own": 0.413, "ad": 1.626, "added m": 3.158, "added p": 4.951, "added out": 5.070},
    "INMODE": {
        **{"own": 0.449, "ad": 2.089, "direct m": 2.012, "direct p": 3.805, "direct out": 3.923},
        **{"added m": 3.372, "added p": 5.165, "added out": 5.283},
    },
    "OPMODE": {"own": 0.449, "past p": 2.209, "past out": 2.326},
    "ALUMODE": {"own": 0.246, "past p": 1.978, "past out": 2.098},
    "CARRYIN": {"own": 0.299, "past p": 1.298, "past out": 1.416},
    "CARRYINSEL": {"own": 0.208, "past p": 1.793, "past out": 1.910},
    "PCIN": {"past p": 1.400, "past out": 1.518},
    "CARRYCASCIN": {"past p": 1.028, "past out": 1.147},
}
# From the clock through a register to P, where no other register is on the way.
_REGISTERS = {
    "A": {"direct": 4.009, "added": 5.368, "past": 2.215},
    "B": {"direct": 3.813, "past": 2.191},
    "C": {"past": 2.291},
    "D": {"added": 5.320},
    "AD": {"added": 3.684},
    "M": {"past": 2.305},
    "INMODE": {"direct": 4.111, "added": 5.470},
    "OPMODE": {"past": 2.231},
    "ALUMODE": {"past": 2.054},
    "CARRYIN": {"past": 1.764},
    "CARRYINSEL": {"past": 1.927},
}
_SAVED = {"ad": 3.444, "m": 1.913, "p": 0.119}  # A, B or D to that register's set-up instead of to P
_P, _P_TO_PCOUT = 0.434, 0.478  # from the clock through the P register
_PCOUT_AFTER_P = 0.195
_CASCADES = (("A", "ACIN", "ACOUT", "ACASCREG", 0.864, 0.723), ("B", "BCIN", "BCOUT", "BCASCREG", 0.833, 0.735))
_CONTROL = {
    **{"CEA1": 0.497, "CEA2": 0.497, "CEB1": 0.514, "CEB2": 0.514, "CED": 0.513, "CEAD": 0.426, "CEM": 0.266},
    **{"CEP": 0.524, "CEC": 0.414, "CECTRL": 0.421, "CEINMODE": 0.603, "CECARRYIN": 0.665, "CEALUMODE": 0.411},
    **{"RSTA": 0.507, "RSTB": 0.543, "RSTD": 0.589, "RSTM": 0.270, "RSTP": 0.347, "RSTC": 0.084, "RSTCTRL": 0.469},
    **{"RSTINMODE": 0.686, "RSTALUMODE": 0.411, "RSTALLCARRYIN": 0.287},
}


class _Use:
    """What a cell uses of its registers, multiplier and pre-adder."""

    def __init__(self, parameters: Parameters) -> None:
        multiplies = parameters.get("USE_MULT", "MULTIPLY") != "NONE"
        selected = (parameters.get("AMULTSEL"), parameters.get("BMULTSEL"))
        adds = multiplies and (parameters.get("USE_DPORT") == "TRUE" or "AD" in selected)
        self._ways = [*(["added"] if adds else []), *(["direct"] if multiplies else []), "past"]
        self.registers = {name for name in (*_REGISTERS, "P") if number(parameters, f"{name}REG", 1) > 0}
        self.registers -= set() if multiplies else {"M", "INMODE"}
        self.registers -= set() if adds else {"AD", "D"}

    def way(self, ways: Iterable[str]) -> str | None:
        """The one of ``ways`` that data takes; None: it goes nowhere."""
        return next((way for way in self._ways if way in ways), None)

    def meets(self, way: str, name: str = "") -> str:
        """The first register on a way, behind the register ``name``: ``ad``, ``m``, ``p``; ``out``: none."""
        if way == "added" and name != "AD" and "AD" in self.registers:
            return "ad"
        if way != "past" and "M" in self.registers:
            return "m"
        return "p" if "P" in self.registers else "out"


def dsp_timing(parameters: Parameters) -> CellTiming:
    """Delays of a DSP48E1, and of a DSP48E2 before its speed grade's factor."""
    use = _Use(parameters)
    captures = list(_CONTROL.items())
    arcs: list[Arc] = [(("@P", ALL), ("P", ALL), 0.0), (("@P", ALL), ("PCOUT", ALL), _PCOUT_AFTER_P)]
    for pin, delays in _PINS.items():
        way = use.way({key.split()[0] for key in delays if " " in key})
        if pin in use.registers:
            captures.append((pin, delays["own"]))
        elif way is not None:
            register = use.meets(way)
            delay = delays["ad" if register == "ad" else f"{way} {register}"]
            if register == "out":
                arcs.append(((pin, ALL), ("@P", ALL), delay))
            else:
                captures.append((pin, delay))
    to_p, inside = [], [0.0]
    for name in use.registers - {"P"}:
        way = use.way(_REGISTERS[name])
        if way is not None:
            register, delay = use.meets(way, name), _REGISTERS[name][way]
            if register == "out":
                to_p.append(delay)
            else:
                inside.append(delay - _SAVED[register])
    launches = [("P", _P), ("PCOUT", _P_TO_PCOUT)] if "P" in use.registers else []
    if to_p and not launches:
        launches = [("P", max(to_p)), ("PCOUT", max(to_p) + _PCOUT_AFTER_P)]
    for pin, cascade_in, cascade_out, register, clocked, through in _CASCADES:
        # The cascade's wires end in the pin's register, or go the pin's way: a little faster, which is not counted.
        captures += [(cascade_in, delay) for name, delay in captures if name == pin]
        arcs += [((cascade_in, ALL), end, delay) for (name, _), end, delay in arcs if name == pin]
        if number(parameters, register, 1) > 0:
            launches.append((cascade_out, clocked))
        else:
            arcs += [((name, ALL), (cascade_out, ALL), through) for name in (pin, cascade_in)]
    return CellTiming(launches=launches, captures=captures, arcs=arcs, inside=max(inside))
