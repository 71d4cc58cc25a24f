"""Delays of the primitives that Yosys maps to, ns, in the terms of a 7 series FPGA of speed grade -1.

Sources, by the name in the comments below:

- SLICE: ``zynq7/timings/slicel.sdf`` and ``slicem.sdf`` of Project X-Ray's database (github.com/f4pga/prjxray-db), the
  slow corner's maximum, the worse of both kinds of slice where nothing else is said
- DSP: ``zynq7/timings/DSP_L.sdf`` there; BRAM: ``spartan7/timings/BRAM_R.sdf``; PS7: ``zynq7/timings/PSS2.sdf``
- SITE: what those files do not have, taken with a margin: the way from the pin of a slice to its flip-flop

An UltraScale+ FPGA has the same functions, and no such measurement is public: its delays are these times a factor by
speed grade, see ``nets``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from edgemoe.boards.timing.dsp import dsp_timing
from edgemoe.boards.timing.model import ALL, CellTiming, Parameters, number
from edgemoe.errors import SynthesisError

__all__ = ["CASCADE_INPUTS", "CASCADE_OUTPUTS", "IGNORED", "PORT_IN", "PORT_OUT", "timing_of_cell"]

LUT = 0.124  # SLICE, A1..A6 to O6
FF_CLOCK_TO_OUT = 0.456  # SLICE 0.340 to Q, and 0.116 to the pin of the slice
FF_DATA = 0.06  # SITE; the flip-flop's own set-up is -0.046
FF_ENABLE = 0.30  # SLICE 0.109, and SITE
FF_RESET = 0.43  # SLICE 0.404, and SITE
MUXF7 = (0.225, 0.314)  # SLICE: data, select
MUXF8 = (0.104, 0.283)
BRAM_CLOCK_TO_OUT = {False: 2.454, True: 0.882}  # BRAM: without and with its output register
PORT_OUT = 1.45  # PS7: clock to an output of its AXI ports, which is an input of ours
PORT_IN = 0.84  # PS7: set-up of their slowest input

# SLICE, CARRY4: from an input to CO0..CO3 and to O0..O3; None: no way there. DI through the slice's AX..DX.
_CARRY4: dict[str, tuple[tuple[float | None, ...], tuple[float | None, ...]]] = {
    "CI": ((0.271, 0.157, 0.228, 0.114), (0.222, 0.334, 0.239, 0.313)),
    "CYINIT": ((0.536, 0.494, 0.592, 0.580), (0.482, 0.598, 0.584, 0.642)),
    "S0": ((0.340, 0.433, 0.512, 0.508), (0.223, 0.400, 0.523, 0.582)),
    "S1": ((None, 0.469, 0.548, 0.528), (None, 0.205, 0.558, 0.618)),
    "S2": ((None, None, 0.292, 0.376), (None, None, 0.226, 0.330)),
    "S3": ((None, None, None, 0.380), (None, None, None, 0.227)),
    "DI0": ((0.379, 0.465, 0.540, 0.526), (None, 0.407, 0.556, 0.615)),
    "DI1": ((None, 0.445, 0.520, 0.507), (None, None, 0.537, 0.596)),
    "DI2": ((None, None, 0.356, 0.398), (None, None, None, 0.438)),
    "DI3": ((None, None, None, 0.385), (None, None, None, None)),
}

# SLICE, a LUT as memory: read, clock to output after a write, set-up of data, write enable and write address.
_MEMORY_READ = {32: 0.157, 64: 0.124, 128: 0.124 + 0.225, 256: 0.124 + 0.225 + 0.104, 512: 0.124 + 0.225 + 0.208}
_MEMORY_CLOCK_TO_OUT, _MEMORY_DATA, _MEMORY_ENABLE, _MEMORY_ADDRESS = 1.19, 0.46, 0.654, 0.362
# SLICE, a LUT as shift register: to Q, to the cascade Q15 or Q31, set-up of data and enable.
_SHIFT_TO_Q, _SHIFT_TO_CASCADE, _SHIFT_DATA, _SHIFT_ENABLE = 1.476, 1.114, 0.178, 0.638

# BRAM: set-up of the ports' pins, by what their names begin with.
_BRAM_SETUP = {
    "ADDR": 0.566,
    "WE": 0.532,
    "EN": 0.443,
    "DI": 0.737,
    "REGCE": 0.360,
    "RSTREG": 0.342,
    "RSTRAM": 0.359,
}
_BRAM_PINS = (
    *("ADDRARDADDR", "ADDRBWRADDR", "WEA", "WEBWE", "ENARDEN", "ENBWREN", "REGCEAREGCE", "REGCEB"),
    *("RSTRAMARSTRAM", "RSTRAMB", "RSTREGARSTREG", "RSTREGB"),
    *("DIADI", "DIBDI", "DIPADIP", "DIPBDIP"),  # 7 series
    *("DINADIN", "DINBDIN", "DINPADINP", "DINPBDINP"),  # UltraScale+
)
_BRAM_OUT = {
    "A": ("DOADO", "DOPADOP", "DOUTADOUT", "DOUTPADOUTP"),
    "B": ("DOBDO", "DOPBDOP", "DOUTBDOUT", "DOUTPBDOUTP"),
}
# No measurement is public: twice a block RAM's without output register, a block RAM's with it.
_URAM_CLOCK_TO_OUT = {False: 2 * BRAM_CLOCK_TO_OUT[False], True: BRAM_CLOCK_TO_OUT[True]}

#: Cells without a path from register to register: clock buffers, constants, Yosys' notes.
IGNORED = re.compile(r"(BUFG|BUFGCE|GND|VCC|\$scopeinfo)$")
#: Pins that are joined by wires of their own, without routing, where one of the first drives one of the second.
CASCADE_OUTPUTS = frozenset({"CO", "PCOUT", "ACOUT", "BCOUT", "CARRYCASCOUT", "MULTSIGNOUT"})
CASCADE_INPUTS = frozenset({"CI", "PCIN", "ACIN", "BCIN", "CARRYCASCIN", "MULTSIGNIN"})


def timing_of_cell(kind: str, parameters: Parameters) -> CellTiming:
    """Delays of a cell of type ``kind``.

    Raises:
        SynthesisError: a type that is not known; nothing is left out of an estimate in silence
    """
    for pattern, make in _MODELS:
        if pattern.fullmatch(kind):
            return make(kind, parameters)
    raise SynthesisError(f"no delays are known of cells of type {kind}: add them to edgemoe/boards/timing/cells.py")


def _lut(kind: str, parameters: Parameters) -> CellTiming:
    inputs = ["I"] if kind == "INV" else [f"I{index}" for index in range(int(kind[3:]))]
    return CellTiming(arcs=[((pin, ALL), ("O", ALL), LUT) for pin in inputs])


def _multiplexer(kind: str, parameters: Parameters) -> CellTiming:
    data, select = MUXF7 if kind == "MUXF7" else MUXF8
    return CellTiming(
        arcs=[((pin, ALL), ("O", ALL), delay) for pin, delay in (("I0", data), ("I1", data), ("S", select))]
    )


def _flip_flop(kind: str, parameters: Parameters) -> CellTiming:
    return CellTiming(
        launches=[("Q", FF_CLOCK_TO_OUT)],
        captures=[("D", FF_DATA), ("CE", FF_ENABLE), *((pin, FF_RESET) for pin in ("R", "S", "CLR", "PRE"))],
    )


def _carry_arcs() -> list[tuple[str, int, str, int, float]]:
    """Arcs of a CARRY4: input pin and bit, output pin and bit, delay."""
    found = []
    for name, (carries, sums) in _CARRY4.items():
        pin, bit = (name, 0) if name.startswith("C") else (name[:-1], int(name[-1]))
        for output, delays in (("CO", carries), ("O", sums)):
            found += [(pin, bit, output, index, delay) for index, delay in enumerate(delays) if delay is not None]
    return found


def _carry4(kind: str, parameters: Parameters) -> CellTiming:
    return CellTiming(arcs=[((pin, bit), (out, index), delay) for pin, bit, out, index, delay in _carry_arcs()])


def _carry8(kind: str, parameters: Parameters) -> CellTiming:
    """Two CARRY4 in a row; UltraScale+ has no CYINIT, a first carry comes in through CI."""
    half = [arc for arc in _carry_arcs() if arc[0] != "CYINIT"]
    arcs = [((pin, bit), (out, index), delay) for pin, bit, out, index, delay in half]
    arcs += [((pin, bit + 4), (out, index + 4), delay) for pin, bit, out, index, delay in half if pin != "CI"]
    to_middle = [(pin, bit, delay) for pin, bit, out, index, delay in half if (out, index) == ("CO", 3)]
    from_middle = [(out, index, delay) for pin, _, out, index, delay in half if pin == "CI"]
    arcs += [
        ((pin, bit), (out, index + 4), first + second)
        for pin, bit, first in to_middle
        for out, index, second in from_middle
    ]
    return CellTiming(arcs=arcs)


def _memory(depth: int, reads: list[tuple[list[str], list[str]]], write: list[str], data: list[str]) -> CellTiming:
    """A memory of LUTs: ``reads`` are pairs of address and output pins, ``write`` its address pins."""
    return CellTiming(
        launches=[(pin, _MEMORY_CLOCK_TO_OUT) for _, outputs in reads for pin in outputs],
        captures=[
            *((pin, _MEMORY_DATA) for pin in data),
            *((pin, _MEMORY_ADDRESS) for pin in write),
            *((pin, _MEMORY_ENABLE) for pin in ("WE", "WSEL")),
        ],
        arcs=[
            ((pin, ALL), (output, ALL), _MEMORY_READ[depth])
            for pins, outputs in reads
            for pin in pins
            for output in outputs
        ],
    )


def _banks(kind: str, parameters: Parameters) -> CellTiming:
    """RAM32M, RAM64M and UltraScale+'s of 8 LUTs: a read port a LUT, the last one's address also writes."""
    letters = "ABCD" if kind in ("RAM32M", "RAM64M") else "ABCDEFGH"
    reads = [([f"ADDR{letter}"], [f"DO{letter}"]) for letter in letters]
    depth = 64 if kind.startswith("RAM64") else 32
    return _memory(depth, reads, [f"ADDR{letters[-1]}"], [f"DI{letter}" for letter in letters])


def _distributed(kind: str, parameters: Parameters) -> CellTiming:
    """RAM<depth>X<width>S and D: single port, and one more port to read. Small ones have a pin for each address bit."""
    depth, ports = re.fullmatch(r"RAM(\d+)X\d+([SD])", kind).groups()  # type: ignore[union-attr]
    bits = int(depth).bit_length() - 1
    own, other = (["A", *(f"A{bit}" for bit in range(bits))], ["DPRA", *(f"DPRA{bit}" for bit in range(bits))])
    reads = [(own, ["O"])] if ports == "S" else [(own, ["SPO"]), (other, ["DPO"])]
    return _memory(max(int(depth), 32), reads, own, ["D"])


def _eight(kind: str, parameters: Parameters) -> CellTiming:
    return _memory(64, [(["A"], ["O"])], ["A"], ["D"])


def _shift_register(kind: str, parameters: Parameters) -> CellTiming:
    address = ["A", "A0", "A1", "A2", "A3"]
    return CellTiming(
        launches=[("Q", _SHIFT_TO_Q), ("Q15", _SHIFT_TO_CASCADE), ("Q31", _SHIFT_TO_CASCADE)],
        captures=[("D", _SHIFT_DATA), ("CE", _SHIFT_ENABLE)],
        arcs=[((pin, ALL), ("Q", ALL), _MEMORY_READ[32]) for pin in address],
    )


def _block_ram(kind: str, parameters: Parameters) -> CellTiming:
    """Each side of a true dual port has its output register; a simple dual port reads both halves with A's."""
    simple = parameters.get("RAM_MODE", "TDP") == "SDP"
    registered = {side: number(parameters, f"DO{'A' if simple else side}_REG", 0) > 0 for side in "AB"}
    captures = []
    for pin in _BRAM_PINS:
        beginning = max((name for name in _BRAM_SETUP if pin.startswith(name)), key=len)
        captures.append((pin, _BRAM_SETUP[beginning]))
    return CellTiming(
        launches=[(pin, BRAM_CLOCK_TO_OUT[registered[side]]) for side in "AB" for pin in _BRAM_OUT[side]],
        captures=captures,
        inside=BRAM_CLOCK_TO_OUT[False] if any(registered.values()) else 0.0,
    )


def _ultra_ram(kind: str, parameters: Parameters) -> CellTiming:
    registered = {side: str(parameters.get(f"OREG_{side}", "FALSE")) == "TRUE" for side in "AB"}
    pins = {"ADDR": 0.566, "BWE": 0.532, "DIN": 0.737, "EN": 0.443, "RDB_WR": 0.532, "RST": 0.359}
    return CellTiming(
        launches=[(f"DOUT_{side}", _URAM_CLOCK_TO_OUT[registered[side]]) for side in "AB"],
        captures=[
            *((f"{pin}_{side}", setup) for pin, setup in pins.items() for side in "AB"),
            *((f"OREG_CE_{side}", 0.360) for side in "AB"),
        ],
        inside=_URAM_CLOCK_TO_OUT[False] if any(registered.values()) else 0.0,
    )


def _dsp(kind: str, parameters: Parameters) -> CellTiming:
    return dsp_timing(parameters)


_MODELS: list[tuple[re.Pattern[str], Callable[[str, Parameters], CellTiming]]] = [
    (re.compile(pattern), make)
    for pattern, make in (
        (r"LUT[1-6]|INV", _lut),
        (r"FD[RSCP]E", _flip_flop),
        (r"MUXF[789]", _multiplexer),
        (r"CARRY4", _carry4),
        (r"CARRY8", _carry8),
        (r"RAM(32M|64M|32M16|64M8|32X16DR8)", _banks),
        (r"RAM(16|32|64|128|256|512)X1[SD]", _distributed),
        (r"RAM64X8SW", _eight),
        (r"SRLC?16E?|SRLC32E", _shift_register),
        (r"RAMB(18|36)E[12]", _block_ram),
        (r"URAM288", _ultra_ram),
        (r"DSP48E[12]", _dsp),
    )
]
