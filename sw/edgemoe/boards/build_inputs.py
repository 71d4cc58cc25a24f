"""What ``boards/build.tcl`` is given: the RTL with the attributes by which Vivado knows its interfaces, and one Tcl
dictionary made from the board's data, so that nothing is written twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from edgemoe.boards.board import Board, BoardError
from edgemoe.boards.zynq import CONTROL_RANGE
from edgemoe.extras import needs
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS

__all__ = ["OUTSTANDING", "add_attributes", "interface_attributes", "parameters_tcl", "rtl_text"]

_AXI = "xilinx.com:interface:aximm:1.0"
_SIGNALS = {"clk": ("clock", "CLK"), "rst": ("reset", "RST"), "irq": ("interrupt", "INTERRUPT")}
_SLAVES = {"clk", "rst", "s_axi"}  # of the interfaces; the others are masters
OUTSTANDING = 16  # unfinished bursts a master and direction: what an HP port of UltraScale+ takes
_PORT = re.compile(r"^  (?:in|out)put (?:\[\d+:0\] )?(?P<name>\w+);$", re.MULTILINE)


def rtl_text(config: AcceleratorConfig) -> str:
    """Verilog of the accelerator for a block design: the simulated RTL, its ports with ``interface_attributes``.

    Raises:
        BoardError: Amaranth is missing
    """
    try:
        from edgemoe_hw.verilog import TOP_NAME
        from edgemoe_sim.build import accelerator_verilog
    except ImportError as error:
        raise BoardError(f"{needs('the RTL', 'sim')} ({error})") from None
    return add_attributes(accelerator_verilog(config), TOP_NAME, interface_attributes(config, ADDRESS_BITS))


def add_attributes(verilog: str, module: str, attributes: Callable[[str], dict[str, str]]) -> str:
    """Give the ports of ``module`` their attributes, each on a line of its own before the port's declaration.

    Nothing else changes. Amaranth could set them too, but Yosys copies them to every net that a port drives.
    """
    begin = verilog.index(f"\nmodule {module}(")
    end = verilog.index("\nendmodule", begin)

    def declaration(port: re.Match[str]) -> str:
        lines = "".join(f'  (* {name} = "{value}" *)\n' for name, value in attributes(port["name"]).items())
        return lines + port[0]

    return verilog[:begin] + _PORT.sub(declaration, verilog[begin:end]) + verilog[end:]


def interface_attributes(config: AcceleratorConfig, address_bits: int) -> Callable[[str], dict[str, str]]:
    """Vivado's attributes of a port, by its name (UG994, "List of Supported X_ Attributes").

    ``s_axi`` is AXI4-Lite; the masters are AXI4 of ``address_bits`` and make no narrow bursts; without their
    ``OUTSTANDING`` a SmartConnect would let two bursts through at a time. ``rst`` is active high.
    """
    masters = [f"m{index}_axi" for index in range(config.axi_masters)]
    # Of a whole interface, given at any one of its ports.
    parameters = {
        # -1: any frequency that the block design has (UG994).
        "clk": {
            "ASSOCIATED_BUSIF": ":".join(["s_axi", *masters]),
            "ASSOCIATED_RESET": "rst",
            "FREQ_TOLERANCE_HZ": "-1",
        },
        "rst": {"POLARITY": "ACTIVE_HIGH"},
        "irq": {"SENSITIVITY": "LEVEL_HIGH"},
        "s_axi": {"PROTOCOL": "AXI4LITE", "DATA_WIDTH": "32", "ADDR_WIDTH": str(regs.ADDRESS_BITS)},
    } | {
        name: {
            "PROTOCOL": "AXI4",
            "DATA_WIDTH": str(8 * config.axi_bytes),
            "ADDR_WIDTH": str(address_bits),
            "SUPPORTS_NARROW_BURST": "0",
            "MAX_BURST_LENGTH": "256",
            "NUM_READ_OUTSTANDING": str(OUTSTANDING),
            "NUM_WRITE_OUTSTANDING": str(OUTSTANDING),
            "HAS_LOCK": "0",
            "HAS_QOS": "0",
            "HAS_REGION": "0",
        }
        for name in masters
    }

    def attributes(port: str) -> dict[str, str]:
        if port in _SIGNALS:
            kind, logical = _SIGNALS[port]
            interface, info = port, f"xilinx.com:signal:{kind}:1.0 {port} {logical}"
        else:
            interface, _, logical = port.rpartition("_")
            info = f"{_AXI} {interface} {logical.upper()}"
        found = {"X_INTERFACE_INFO": info}
        if port in _SIGNALS or logical == "awaddr":
            values = ", ".join(f"{key} {value}" for key, value in parameters[interface].items())
            found["X_INTERFACE_MODE"] = (
                "slave" if interface in _SLAVES else "master"
            )  # Vivado from 2024.2 on asks for it
            found["X_INTERFACE_PARAMETER"] = f"XIL_INTERFACENAME {interface}, {values}"
        return found

    return attributes


def parameters_tcl(board: Board, rtl: Path, work: Path) -> str:
    """Tcl that sets the dictionary ``build``.

    Args:
        rtl: Verilog file
        work: folder for Vivado's project and the results
    """
    family = board.family
    masters = [
        _dictionary(
            {
                "master": f"m{index}_axi",
                "port": port.interface,
                "clock": port.clock,
                "block": port.address_block,
                "segments": _list(
                    _list((segment.name, f"{segment.base:#x}", f"{segment.size:#x}")) for segment in port.segments
                ),
            }
        )
        for index, port in enumerate(board.ports)
    ]
    values = {
        "board": board.name,
        "part": board.part,
        "board_part": board.board_part,
        "rtl": str(rtl),
        "work": str(work),
        "clock_mhz": f"{board.clock_mhz:g}",
        "ps_ip": family.ip,
        "ps_automation": family.automation,
        "ps_clock_mode": _settings(family.clock_mode),
        "ps_settings": _settings(board.ps_settings),
        "control": family.control,
        "control_clock": family.control_clock,
        "control_base": f"{family.control_base:#x}",
        "interrupt_controller_base": f"{family.interrupt_controller_base:#x}",
        "control_range": f"{CONTROL_RANGE:#x}",
        "clock": family.clock,
        "reset": family.reset,
        "irq": family.irq,
        "data_bits": str(board.hp_bits),
        "hp_is_axi4": str(int(family.hp_is_axi4)),
        "outstanding": str(OUTSTANDING),
        "masters": _list(masters),
    }
    lines = [
        f"# Made by edgemoe from {board.file.parent.name}/{board.file.name}; read by build.tcl.",
        "set build [dict create]",
    ]
    lines += [f"dict set build {key} {_quoted(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """One word of a Tcl list. All our words balance their braces or have none; a path with one is refused."""
    if word.count("{") != word.count("}") or "\\" in word or "\n" in word:
        raise BoardError(f"Vivado cannot be given {word!r}: no braces, backslashes or line breaks, please")
    return "{" + word + "}"


def _list(words: Iterable[str]) -> str:
    return " ".join(map(_quoted, words))


def _settings(values: dict[str, str]) -> str:
    return _dictionary({f"CONFIG.{name}": value for name, value in values.items()})


def _dictionary(values: dict[str, str]) -> str:
    return _list(item for pair in values.items() for item in pair)
