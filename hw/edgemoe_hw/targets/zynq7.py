"""The accelerator on a Zynq-7000 without the vendor's IP: its processing system as a primitive, AXI3 between them."""

from amaranth.hdl import Cat, ClockDomain, Const, Elaboratable, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from edgemoe_hw.bus.axi3 import Axi3Signature, Axi3Slave
from edgemoe_hw.bus.bursts import AXI3_BEATS
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import AcceleratorConfig, ConfigError
from edgemoe_hw.targets.ps7 import PS7_INPUTS
from edgemoe_hw.top import Accelerator

__all__ = ["Zynq7Core", "Zynq7System"]

_HP_PORTS, _HP_BYTES, _HP_ID_BITS = 4, 8, 6
_GP_BYTES, _GP_ID_BITS = 4, 12


class Zynq7Core(wiring.Component):
    """The accelerator between the processing system's ports.

    Members:
        gp0: registers, from M_AXI_GP0
        hp0, ...: one memory port a master, to S_AXI_HPn
        irq: to IRQF2P[0]

    Raises:
        ConfigError: the accelerator has wider masters than the HP ports
    """

    def __init__(self, config: AcceleratorConfig):
        if config.axi_bytes != _HP_BYTES:  # there are 4 masters at most
            raise ConfigError(
                f"a Zynq-7000 has {_HP_PORTS} memory ports of {_HP_BYTES} bytes, not {config.axi_masters} of "
                f"{config.axi_bytes}"
            )
        self._config = config
        hp = {f"hp{i}": Out(Axi3Signature(_HP_BYTES, _HP_ID_BITS)) for i in range(config.axi_masters)}
        super().__init__({"gp0": In(Axi3Signature(_GP_BYTES, _GP_ID_BITS)), **hp, "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accelerator = accelerator = Accelerator(self._config, AXI3_BEATS)
        m.submodules.control = control = Axi3Slave(id_bits=_GP_ID_BITS, address_bits=regs.ADDRESS_BITS)
        connect(m, flipped(self.gp0), control.bus)
        connect(m, control.lite, accelerator.s_axi)
        m.d.comb += self.irq.eq(accelerator.irq)
        for index in range(self._config.axi_masters):
            self._memory_port(m, getattr(accelerator, f"m{index}_axi"), getattr(self, f"hp{index}"))
        return m

    def _memory_port(self, m: Module, axi: wiring.PureInterface, port: wiring.PureInterface) -> None:
        """Fields by their names. What is wider on the accelerator's side has zeros there: no DRAM beyond 4 GiB, no
        burst beyond 16 beats; what AXI4 does not have (lock, WID) is 0, as one ID and no exclusive access want it."""
        pairs = [(getattr(axi, name), getattr(port, name)) for name in ("aw", "w", "ar")]
        pairs += [(getattr(port, name), getattr(axi, name)) for name in ("b", "r")]
        for source, target in pairs:
            m.d.comb += [target.valid.eq(source.valid), source.ready.eq(target.ready)]
            known = {field for field, _ in source.payload.shape()}
            for field, _ in target.payload.shape():
                if field in known:
                    wanted = Value.cast(target.payload[field])
                    m.d.comb += wanted.eq(Value.cast(source.payload[field])[: len(wanted)])


class Zynq7System(Elaboratable):
    """A whole design without a port: ``Zynq7Core``, the primitive PS7, and a global clock buffer.

    The clock is FCLKCLK[0]; its reset is FCLKRESETN[0], through two registers.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = Zynq7Core(self._config)
        clocks, resets = Signal(4), Signal(4)
        m.domains.sync = sync = ClockDomain()
        m.domains.flop = flop = ClockDomain(reset_less=True)
        m.submodules.buffer = Instance("BUFG", i_I=clocks[0], o_O=sync.clk)
        m.d.comb += flop.clk.eq(sync.clk)
        late = Signal(2, init=-1)
        m.d.flop += late.eq((late << 1) | ~resets[0])
        m.d.comb += sync.rst.eq(late[1])

        inputs: dict[str, Value] = {"IRQF2P": core.irq}
        outputs: dict[str, Value] = {"FCLKCLK": clocks, "FCLKRESETN": resets}
        self._port(inputs, outputs, "MAXIGP0", core.gp0, sync.clk, master=True)
        for index in range(self._config.axi_masters):
            self._port(inputs, outputs, f"SAXIHP{index}", getattr(core, f"hp{index}"), sync.clk, master=False)
        tied = {name: Const(0, bits) for name, bits in PS7_INPUTS.items()}
        for name, value in inputs.items():
            tied[name] = _sized(value, PS7_INPUTS[name])
        m.submodules.ps7 = Instance(
            "PS7",
            **{f"i_{name}": value for name, value in tied.items()},
            **{f"o_{name}": value for name, value in outputs.items()},
        )
        return m

    def _port(
        self,
        inputs: dict[str, Value],
        outputs: dict[str, Value],
        name: str,
        bus: wiring.PureInterface,
        clock: Signal,
        *,
        master: bool,
    ) -> None:
        """An AXI3 port of PS7, ``master`` as the processing system sees it."""
        inputs[f"{name}ACLK"] = clock
        for channel in ("aw", "w", "b", "ar", "r"):
            stream = getattr(bus, channel)
            from_master = channel in ("aw", "w", "ar")
            told, answer = (outputs, inputs) if from_master == master else (inputs, outputs)
            told[f"{name}{channel.upper()}VALID"] = stream.valid
            answer[f"{name}{channel.upper()}READY"] = stream.ready
            for field, _ in stream.payload.shape():
                told[f"{name}{channel.upper()}{field.upper()}"] = Value.cast(stream.payload[field])


def _sized(value: Value, bits: int) -> Value:
    """``value`` with zeros above it."""
    return Cat(value, Const(0, bits))[:bits]
