"""The accelerator: control plane and compute side."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from edgemoe_hw.bus.axi import AxiLiteSignature, AxiSignature
from edgemoe_hw.bus.bursts import AXI4_BEATS
from edgemoe_hw.control_plane.plane import ControlPlane
from edgemoe_hw.engines.compute import ComputeSide
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """The whole accelerator, ready for a block design.

    Args:
        config: of the accelerator
        burst_beats: of the longest burst, a power of two; an AXI3 port takes 16

    Members:
        s_axi: AXI4-Lite control and status
        m0_axi, ...: AXI4 masters to DRAM
        irq: level interrupt: a program ended or was stopped
    """

    def __init__(self, config: AcceleratorConfig, burst_beats: int = AXI4_BEATS):
        self._config, self._burst_beats = config, burst_beats
        super().__init__(
            {
                "s_axi": In(AxiLiteSignature()),
                **{f"m{i}_axi": Out(AxiSignature(config.axi_bytes)) for i in range(config.axi_masters)},
                "irq": Out(1),
            }
        )

    @property
    def config(self) -> AcceleratorConfig:
        return self._config

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.control = control = ControlPlane(config, self._burst_beats)
        m.submodules.compute = compute = ComputeSide(config)

        connect(m, flipped(self.s_axi), control.s_axi)
        for index in range(config.axi_masters):
            connect(m, getattr(control, f"m{index}_axi"), flipped(getattr(self, f"m{index}_axi")))
            connect(m, control.beats[index], compute.beats[index])
        connect(m, control.matmul, compute.matmul)
        connect(m, control.norm, compute.norm)
        connect(m, control.store_read, compute.store)
        connect(m, compute.status, control.status)
        m.d.comb += [self.irq.eq(control.irq), compute.reset.eq(control.reset_engines)]
        return m
