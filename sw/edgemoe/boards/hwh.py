"""A board's hardware handoff (``.hwh``) without Vivado: what PYNQ reads to know the design.

It describes the same block design as ``boards/build.tcl`` builds, as far as PYNQ looks: the processing system with its
clock, the accelerator, the interrupt controller. It has no registers, since Vivado describes none of a module
reference. It serves simulation and inspection; beside a bitstream belongs the file that Vivado wrote for it.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from edgemoe.boards.board import Board
from edgemoe.boards.zynq import CONTROL_RANGE, ZynqFamily
from edgemoe_hw.spec.constants import MODULE_VLNV

__all__ = ["ACCELERATOR", "INTERRUPT_CONTROLLER", "PROCESSING_SYSTEM", "hwh_text"]

# Names of the cells, as in boards/build.tcl.
ACCELERATOR, INTERRUPT_CONTROLLER, PROCESSING_SYSTEM = "edgemoe_0", "intc", "ps"
_AXI_VLNV = "xilinx.com:interface:aximm:1.0"
_PS_VERSION = {"zynq-7000": ":5.5", "zynq-ultrascale+": ":3.5"}  # PYNQ wants one, and looks at none


def hwh_text(board: Board, vlnv: str = MODULE_VLNV, *, interrupts: bool = True) -> str:
    """XML of the board's design, the accelerator as IP ``vlnv``.

    ``interrupts``: there is the controller without which PYNQ sees no interrupt, and the driver polls.

    Raises:
        BoardError: the board's clock cannot be divided from its PLL
    """
    system = ET.Element("EDKSYSTEM", EDWVERSION="1.2", TIMESTAMP="", VIVADOVERSION="none: written by edgemoe")
    ET.SubElement(
        system,
        "SYSTEMINFO",
        ARCH="zynq" if board.family.seven else "zynquplus",
        BOARD=board.board_part,
        DEVICE=board.device.name,
        NAME="edgemoe_bd",
        PART=board.part,
    )
    ET.SubElement(system, "EXTERNALPORTS")
    ET.SubElement(system, "EXTERNALINTERFACES")
    modules = ET.SubElement(system, "MODULES")
    _accelerator(modules, board, vlnv, interrupts)
    if interrupts:
        _interrupt_controller(modules, board.family)
    _processing_system(modules, board, interrupts)
    ET.indent(system)
    return '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>\n' + ET.tostring(system, encoding="unicode") + "\n"


def _module(modules: ET.Element, name: str, kind: str, vlnv: str, parameters: dict[str, str]) -> ET.Element:
    module = ET.SubElement(
        modules,
        "MODULE",
        FULLNAME=f"/{name}",
        HWVERSION=vlnv.rpartition(":")[2],
        INSTANCE=name,
        IPTYPE="PERIPHERAL",
        IS_ENABLE="1",
        MODCLASS="PERIPHERAL",
        MODTYPE=kind,
        VLNV=vlnv,
    )
    values = ET.SubElement(module, "PARAMETERS")
    for key, value in parameters.items():
        ET.SubElement(values, "PARAMETER", NAME=key, VALUE=value)
    return module


def _ports(module: ET.Element, *ports: tuple[str, str, str, str, tuple[str, ...]]) -> None:
    """(name, direction, kind, net, what it is connected to as ``<instance>/<port>``)"""
    parent = ET.SubElement(module, "PORTS")
    for name, direction, kind, net, ends in ports:
        port = ET.SubElement(parent, "PORT", DIR=direction, NAME=name, SIGIS=kind, SIGNAME=net)
        connections = ET.SubElement(port, "CONNECTIONS")
        for end in ends:
            instance, _, pin = end.partition("/")
            ET.SubElement(connections, "CONNECTION", INSTANCE=instance, PORT=pin)


def _interfaces(module: ET.Element, *interfaces: tuple[str, str, int]) -> None:
    """(name, MASTER or SLAVE, data bits)"""
    parent = ET.SubElement(module, "BUSINTERFACES")
    for name, kind, bits in interfaces:
        net = f"{module.get('INSTANCE')}_{name}"
        interface = ET.SubElement(
            parent, "BUSINTERFACE", BUSNAME=net, DATAWIDTH=str(bits), NAME=name, TYPE=kind, VLNV=_AXI_VLNV
        )
        ET.SubElement(interface, "PARAMETER", NAME="DATA_WIDTH", VALUE=str(bits))


def _range(
    memory: ET.Element, block: str, base: int, size: int, instance: str, kind: str, master: str, slave: str
) -> None:
    ET.SubElement(
        memory,
        "MEMRANGE",
        ADDRESSBLOCK=block,
        BASENAME="C_BASEADDR",
        BASEVALUE=f"{base:#010x}",
        HIGHNAME="C_HIGHADDR",
        HIGHVALUE=f"{base + size - 1:#010x}",
        INSTANCE=instance,
        IS_DATA="TRUE",
        IS_INSTRUCTION="TRUE",
        MASTERBUSINTERFACE=master,
        MEMTYPE=kind,
        SLAVEBUSINTERFACE=slave,
    )


def _accelerator(modules: ET.Element, board: Board, vlnv: str, interrupts: bool) -> None:
    module = _module(modules, ACCELERATOR, "edgemoe", vlnv, {})
    blocks = ET.SubElement(module, "ADDRESSBLOCKS")
    ET.SubElement(
        blocks,
        "ADDRESSBLOCK",
        ACCESS="read-write",
        INTERFACE="s_axi",
        NAME="reg0",
        RANGE=str(CONTROL_RANGE),
        USAGE="register",
    )
    clock = f"{PROCESSING_SYSTEM}_{board.family.clock}"
    _ports(
        module,
        ("clk", "I", "clk", clock, (f"{PROCESSING_SYSTEM}/{board.family.clock}",)),
        ("irq", "O", "INTERRUPT", f"{ACCELERATOR}_irq", (f"{INTERRUPT_CONTROLLER}/intr",) if interrupts else ()),
    )
    masters = [f"m{index}_axi" for index in range(board.hp_ports)]
    _interfaces(module, ("s_axi", "SLAVE", 32), *((name, "MASTER", board.hp_bits) for name in masters))
    memory = ET.SubElement(module, "MEMORYMAP")
    for name, port in zip(masters, board.ports, strict=True):
        for segment in port.segments:
            _range(memory, segment.name, segment.base, segment.size, PROCESSING_SYSTEM, "MEMORY", name, port.interface)


def _interrupt_controller(modules: ET.Element, family: ZynqFamily) -> None:
    module = _module(
        modules,
        INTERRUPT_CONTROLLER,
        "axi_intc",
        "xilinx.com:ip:axi_intc:4.1",
        {"C_NUM_INTR_INPUTS": "1", "C_IRQ_CONNECTION": "1"},
    )
    _ports(
        module,
        ("intr", "I", "INTERRUPT", f"{ACCELERATOR}_irq", (f"{ACCELERATOR}/irq",)),
        ("irq", "O", "INTERRUPT", "intc_irq", (f"{PROCESSING_SYSTEM}/{family.irq}",)),
    )
    _interfaces(module, ("s_axi", "SLAVE", 32))


def _processing_system(modules: ET.Element, board: Board, interrupts: bool) -> None:
    family = board.family
    module = _module(
        modules,
        PROCESSING_SYSTEM,
        family.ip.rpartition(":")[2],
        family.ip + _PS_VERSION[family.name],
        board.family.clock_mode | board.ps_settings | _clock_parameters(board) | _port_widths(board),
    )
    module.set("CONFIGURABLE", "TRUE")
    module.set("IS_PL", "FALSE")  # by which PYNQ 3.0.1 knows it
    clock = (family.clock, "O", "clk", f"{PROCESSING_SYSTEM}_{family.clock}", (f"{ACCELERATOR}/clk",))
    controller = (family.irq, "I", "INTERRUPT", "intc_irq", (f"{INTERRUPT_CONTROLLER}/irq",))
    _ports(module, clock, *([controller] if interrupts else []))
    _interfaces(
        module, (family.control, "MASTER", 32), *((port.interface, "SLAVE", board.hp_bits) for port in board.ports)
    )
    memory = ET.SubElement(module, "MEMORYMAP")
    slaves = [(family.control_base, ACCELERATOR)]
    if interrupts:
        slaves.append((family.interrupt_controller_base, INTERRUPT_CONTROLLER))
    for base, instance in slaves:
        _range(memory, "reg0", base, CONTROL_RANGE, instance, "REGISTER", family.control, "s_axi")


def _port_widths(board: Board) -> dict[str, str]:
    """PYNQ sets the widths of ZynqMP's ports by these when it loads a bitstream."""
    if board.family.seven:
        return {}
    return {"C_MAXIGP0_DATA_WIDTH": "32"} | {
        f"C_SAXIGP{2 + i}_DATA_WIDTH": str(board.hp_bits) for i in range(board.hp_ports)
    }


def _clock_parameters(board: Board) -> dict[str, str]:
    """Sources and divisors of the four PL clocks, only the first of which is on."""
    first, second = board.divisors
    source = board.family.pll
    found: dict[str, str] = {}
    for index in range(4):
        on = str(int(index == 0))
        if board.family.seven:
            found |= {
                f"PCW_FPGA_FCLK{index}_ENABLE": on,
                f"PCW_FCLK{index}_PERIPHERAL_CLKSRC": source,
                f"PCW_FCLK{index}_PERIPHERAL_DIVISOR0": str(first),
                f"PCW_FCLK{index}_PERIPHERAL_DIVISOR1": str(second),
            }
        else:
            control = f"PSU__CRL_APB__PL{index}_REF_CTRL__"
            found |= {
                f"PSU__FPGA_PL{index}_ENABLE": on,
                f"{control}SRCSEL": source,
                f"{control}DIVISOR0": str(first),
                f"{control}DIVISOR1": str(second),
                f"{control}ACT_FREQMHZ": f"{board.pl_clock_mhz:g}",
            }
    return found
