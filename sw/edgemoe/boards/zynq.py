"""What the block designs of the two Zynq families call things; Tcl and ``.hwh`` are both made from this.

Names of PS settings, ports and address segments are those of the IP ``processing_system7`` and ``zynq_ultra_ps_e``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTROL_RANGE", "FAMILIES", "HpPort", "Segment", "ZynqFamily"]


CONTROL_RANGE = 0x1000  # of each AXI4-Lite slave: the smallest that address decoders know
_GIB = 1 << 30


@dataclass(frozen=True)
class Segment:
    """A range of a PS slave port's addresses: ``name`` as the PS calls it, base and size in bytes."""

    name: str
    base: int
    size: int


@dataclass(frozen=True)
class HpPort:
    """A high-performance slave port of the PS."""

    interface: str
    clock: str
    address_block: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class ZynqFamily:
    """One family's processing system.

    Attributes:
        ip: IP without version
        automation: options of its block automation
        control, control_clock: the master port that drives the registers
        control_base: where that port's addresses begin
        clock, reset, irq: pins
        pll: the PLL from which the PL's clock is divided, as the PS's settings call it. The IO PLL always: PYNQ 3
            writes a design's divisors and leaves the source that the board booted with, which is that one
        hp_bits: widths that its HP ports can have
        hp_is_axi4: whether masters of equal width and clock are connected to them directly; AXI3 needs a SmartConnect
    """

    name: str
    ip: str
    automation: str
    control: str
    control_clock: str
    control_base: int
    clock: str
    reset: str
    irq: str
    pll: str
    hp_bits: tuple[int, ...]
    hp_is_axi4: bool

    @property
    def seven(self) -> bool:
        return self.name == "zynq-7000"

    @property
    def interrupt_controller_base(self) -> int:
        return self.control_base + 0x1_0000

    def hp_port(self, index: int, dram_bytes: int) -> HpPort:
        """HP port ``index`` of a board with that much DRAM; ranges are rounded up to a power of two."""
        if self.seven:
            return HpPort(
                f"S_AXI_HP{index}",
                f"S_AXI_HP{index}_ACLK",
                f"S_AXI_HP{index}",
                (Segment(f"HP{index}_DDR_LOWOCM", 0, dram_bytes),),
            )
        low = min(dram_bytes, 2 * _GIB)
        high = dram_bytes - low
        segments = [Segment(f"HP{index}_DDR_LOW", 0, low)]
        if high:
            segments.append(Segment(f"HP{index}_DDR_HIGH", 0x8_0000_0000, 1 << (high - 1).bit_length()))
        return HpPort(f"S_AXI_HP{index}_FPD", f"saxihp{index}_fpd_aclk", f"SAXIGP{2 + index}", tuple(segments))

    @property
    def clock_mode(self) -> dict[str, str]:
        """Settings of the PS to be made before all others: the tool computes the divisors of the clocks.

        Some presets (Ultra96-V2's) have divisors of their own; a frequency that is asked for then changes nothing.
        """
        return {"PCW_OVERRIDE_BASIC_CLOCK" if self.seven else "PSU__OVERRIDE__BASIC_CLOCK": "0"}

    def settings(self, clock_mhz: float, hp_ports: int, hp_bits: int, dram_bytes: int) -> dict[str, str]:
        """Settings of the PS beside those of the board's preset, without ``CONFIG.``; ports that are not used are off,
        because presets turn some on whose clocks would stay open."""
        if self.seven:
            fixed = {
                "PCW_USE_M_AXI_GP0": "1",
                "PCW_USE_FABRIC_INTERRUPT": "1",
                "PCW_IRQ_F2P_INTR": "1",
                "PCW_EN_CLK0_PORT": "1",
                "PCW_EN_RST0_PORT": "1",
                "PCW_FPGA0_PERIPHERAL_FREQMHZ": f"{clock_mhz:g}",
            }
            unused = ["M_AXI_GP1", "S_AXI_GP0", "S_AXI_GP1", "S_AXI_ACP"]
            fixed |= {f"PCW_USE_{name}": "0" for name in unused}
            ports = {f"PCW_USE_S_AXI_HP{i}": str(int(i < hp_ports)) for i in range(4)}
            widths = {f"PCW_S_AXI_HP{i}_DATA_WIDTH": str(hp_bits) for i in range(hp_ports)}
        else:
            control = "PSU__CRL_APB__PL0_REF_CTRL__"
            fixed = {
                "PSU__USE__M_AXI_GP0": "1",
                "PSU__MAXIGP0__DATA_WIDTH": "32",
                "PSU__USE__IRQ0": "1",
                "PSU__USE__FABRIC__RST": "1",
                f"{control}SRCSEL": self.pll,
                f"{control}FREQMHZ": f"{clock_mhz:g}",
                "PSU__HIGH_ADDRESS__ENABLE": str(int(dram_bytes > 2 * _GIB)),
            }
            unused = ["M_AXI_GP1", "M_AXI_GP2", "S_AXI_GP0", "S_AXI_GP1", "S_AXI_GP6", "S_AXI_ACP", "S_AXI_ACE"]
            fixed |= {f"PSU__USE__{name}": "0" for name in unused}
            fixed |= {f"PSU__FPGA_PL{i}_ENABLE": str(int(i == 0)) for i in range(4)}
            ports = {f"PSU__USE__S_AXI_GP{2 + i}": str(int(i < hp_ports)) for i in range(4)}
            widths = {f"PSU__SAXIGP{2 + i}__DATA_WIDTH": str(hp_bits) for i in range(hp_ports)}
        return fixed | ports | widths


FAMILIES = {
    family.name: family
    for family in (
        ZynqFamily(
            "zynq-7000",
            "xilinx.com:ip:processing_system7",
            'make_external "FIXED_IO, DDR" apply_board_preset "1" Master "Disable" Slave "Disable"',
            "M_AXI_GP0",
            "M_AXI_GP0_ACLK",
            0x4000_0000,
            "FCLK_CLK0",
            "FCLK_RESET0_N",
            "IRQ_F2P",
            pll="IO PLL",
            hp_bits=(64,),
            hp_is_axi4=False,
        ),
        ZynqFamily(
            "zynq-ultrascale+",
            "xilinx.com:ip:zynq_ultra_ps_e",
            'apply_board_preset "1"',
            "M_AXI_HPM0_FPD",
            "maxihpm0_fpd_aclk",
            0xA000_0000,
            "pl_clk0",
            "pl_resetn0",
            "pl_ps_irq0",
            pll="IOPLL",
            hp_bits=(64, 128),
            hp_is_axi4=True,
        ),
    )
}
