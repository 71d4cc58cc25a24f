"""All units that need no control plane, side by side in one design: one Verilator build for their cocotb benches."""

import functools

from amaranth import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.engines.matmul.activation import Activation
from edgemoe_hw.engines.matmul.array import MacArray
from edgemoe_hw.engines.matmul.gate import GateUnit
from edgemoe_hw.engines.matmul.operands import OperandPath
from edgemoe_hw.engines.matmul.requantize import Requantizer
from edgemoe_hw.engines.matmul.softmax import Exp2Lanes, Reciprocal
from edgemoe_hw.engines.norm.unit import LayerNormUnit
from edgemoe_hw.scratchpad import WeightScratchpad
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.verilog import generate

__all__ = ["LANES", "UNITS", "UnitBench", "unit_verilog"]

UNITS = AcceleratorConfig(
    name="units",
    lanes_k=16,
    lanes_n=24,
    epilogue_lanes=8,
    norm_lanes=2,
    weight_depth=16,
    max_dim=48,
    max_tokens=24,
    max_experts=16,
)
LANES = 3  # of the units without handshake; no power of two


class UnitBench(wiring.Component):
    """The units as ports ``mac``, ``requantize``, ``activation``, ``exp2``, ``reciprocal``, ``norm``, ``gate``,
    ``weight``, ``operands``.

    In Verilog a unit's member ``x`` is ``<unit>_x``, an array's element ``<unit>_x<i>``, a port's or a stream's field
    ``<unit>_<port><field>``; a field that is a record or a vector is one number.
    """

    def __init__(self) -> None:
        self._units: dict[str, wiring.Component] = {
            "mac": MacArray(8, 6),
            "requantize": Requantizer(LANES),
            "activation": Activation(LANES, 8),
            "exp2": Exp2Lanes(LANES),
            "reciprocal": Reciprocal(18),
            "norm": LayerNormUnit(UNITS),
            "gate": GateUnit(UNITS),
            "weight": WeightScratchpad(UNITS),
            "operands": OperandPath(UNITS),
        }
        members = {name: Out(unit.signature) for name, unit in self._units.items()}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, unit in self._units.items():
            m.submodules[name] = unit
            port = getattr(self, name)
            inner = {path: Value.cast(value) for path, _, value in unit.signature.flatten(unit)}
            for path, member, value in port.signature.flatten(port):
                outer = Value.cast(value)
                m.d.comb += inner[path].eq(outer) if member.flow == In else outer.eq(inner[path])
        return m


@functools.cache
def unit_verilog() -> str:
    """Verilog of ``UnitBench``."""
    return generate(UNITS, UnitBench())
