"""Verilog of a component, its AXI ports under their standard flat names."""

import re

from amaranth.back import rtlil, verilog
from amaranth.hdl import (
    Cat,
    ClockDomain,
    ClockSignal,
    Elaboratable,
    Module,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import data, wiring

from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["TOP_NAME", "FlatPorts", "generate", "generate_rtlil"]

TOP_NAME = "edgemoe"

# Amaranth initializes every memory; thousands of lines that set rows to zero only slow every tool down.
_INITIAL = re.compile(r"^ *initial begin\n.*?^ *end\n", re.MULTILINE | re.DOTALL)
_ZERO_CELL = re.compile(
    r"(?:^ *attribute .*\n)*^ *cell \$meminit_v2 .*\n(?:.*\n){6} *connect \\DATA \d+'0*\n(?:.*\n) *end\n", re.MULTILINE
)
_ZERO_INIT = re.compile(r"^ *[\w\\]+ ?\[\d+\] = \d+'h0+;\n", re.MULTILINE)


class FlatPorts(Elaboratable):
    """A component with one signal a port: ``<port>``, and ``<port>_<channel><field>`` for AXI (``m0_axi_awaddr``)."""

    def __init__(self, component: wiring.Component):
        self._component = component
        self.ports: dict[str, Signal] = {"clk": Signal(name="clk"), "rst": Signal(name="rst")}
        self._joins: list[tuple[Signal, Value, bool]] = []  # (port, inner value, whether it is an output)
        for path, member, value in component.signature.flatten(component):
            names = [str(part) for part in path]
            if isinstance(value, data.View) and names[-1] == "payload":
                prefix = self._prefix(names)
                for field, _ in value.shape():
                    self._add(prefix + field, Value.cast(value[field]), member.flow)
            else:
                name = self._prefix(names) + names[-1] if len(names) > 1 else names[0]
                self._add(name, Value.cast(value), member.flow)

    @staticmethod
    def _prefix(names: list[str]) -> str:
        """``m0_axi_aw`` for a channel's member, ``<port>_`` for one of a plain stream."""
        return "_".join(names[:-1]) + ("" if len(names) > 2 else "_")

    def _add(self, name: str, value: Value, flow: wiring.Flow) -> None:
        port = Signal(len(value), name=name)
        self.ports[name] = port
        self._joins.append((port, value, flow == wiring.Out))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.domains.flop = ClockDomain(reset_less=True)
        m.submodules.top = self._component
        # A registered reset: short paths on a device, and no logic that hangs on an input pin in a simulator.
        reset = Signal(init=1)
        m.d.flop += reset.eq(self.ports["rst"])
        m.d.comb += [
            ClockSignal("sync").eq(self.ports["clk"]),
            ClockSignal("flop").eq(self.ports["clk"]),
            ResetSignal("sync").eq(reset),
        ]
        for port, value, is_output in self._joins:
            m.d.comb += port.eq(value) if is_output else Cat(value).eq(port)
        return m


def generate(config: AcceleratorConfig, top: wiring.Component | None = None) -> str:
    """Verilog of the accelerator, or of ``top``, as module ``edgemoe``.

    Clock ``clk``, synchronous active-high reset ``rst``, all other ports as ``FlatPorts`` names them. The text is the
    same for the same design, without source locations.
    """
    flat = _flat(config, top)
    ports = list(flat.ports.values())
    text = verilog.convert(flat, name=TOP_NAME, ports=ports, emit_src=False, strip_internal_attrs=True)
    return _INITIAL.sub(lambda block: _ZERO_INIT.sub("", block[0]), text)


def generate_rtlil(config: AcceleratorConfig, top: wiring.Component | None = None) -> str:
    """The same design as Yosys' own text, with source locations.

    Yosys reads it some ten times faster than Verilog and in a part of the memory, which large arrays need.
    """
    flat = _flat(config, top)
    text = rtlil.convert(flat, name=TOP_NAME, ports=list(flat.ports.values()))
    return _ZERO_CELL.sub("", text)


def _flat(config: AcceleratorConfig, top: wiring.Component | None) -> FlatPorts:
    if top is None:
        from edgemoe_hw.top import (
            Accelerator,  # the top pulls in every unit; benches of a part need not
        )

        top = Accelerator(config)
    return FlatPorts(top)
