"""The primitive ``PS7``, Zynq-7000's processing system as the fabric sees it: its inputs (AMD UG585, appendix A).

A design without the vendor's IP must drive every one: an input that is left open is not 0 on the device, and a port
that nobody uses would see requests. Pins of the package (DDR, MIO) are wired on the die.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["PS7_INPUTS"]

_ADDRESS = {"ADDR": 32, "BURST": 2, "CACHE": 4, "LEN": 4, "LOCK": 2, "PROT": 3, "QOS": 4, "SIZE": 2, "VALID": 1}


def _slave(name: str, id_bits: int, data_bits: int, more: dict[str, int]) -> dict[str, int]:
    """Inputs of an AXI3 slave of the processing system."""
    fields = {f"{channel}{field}": bits for channel in ("AR", "AW") for field, bits in _ADDRESS.items()}
    fields |= {"ARID": id_bits, "AWID": id_bits, "WID": id_bits, "ACLK": 1, "BREADY": 1, "RREADY": 1}
    fields |= {"WDATA": data_bits, "WSTRB": data_bits // 8, "WLAST": 1, "WVALID": 1} | more
    return {f"{name}{field}": bits for field, bits in fields.items()}


def _master(name: str) -> dict[str, int]:
    """Inputs of an AXI3 master of the processing system."""
    fields = {"ACLK": 1, "ARREADY": 1, "AWREADY": 1, "WREADY": 1, "BVALID": 1, "BID": 12, "BRESP": 2}
    fields |= {"RVALID": 1, "RID": 12, "RDATA": 32, "RRESP": 2, "RLAST": 1}
    return {f"{name}{field}": bits for field, bits in fields.items()}


def _inputs() -> dict[str, int]:
    found: dict[str, int] = {}
    for number in range(2):
        found |= _master(f"MAXIGP{number}") | _slave(f"SAXIGP{number}", 6, 32, {})
    for number in range(4):
        found |= _slave(f"SAXIHP{number}", 6, 64, {"RDISSUECAP1EN": 1, "WRISSUECAP1EN": 1})
        found |= {f"DMA{number}{pin}": 1 for pin in ("ACLK", "DAREADY", "DRLAST", "DRVALID")}
        found[f"DMA{number}DRTYPE"] = 2
    found |= _slave("SAXIACP", 3, 64, {"ARUSER": 5, "AWUSER": 5})
    pins = {
        "CAN": ("PHYRX",),
        "ENET": ("EXTINTIN", "GMIICOL", "GMIICRS", "GMIIRXCLK", "GMIIRXDV", "GMIIRXER", "GMIITXCLK", "MDIOI"),
        "I2C": ("SCLI", "SDAI"),
        "SDIO": ("CDN", "CLKFB", "CMDI", "WP"),
        "SPI": ("MI", "SCLKI", "SI", "SSIN"),
        "UART": ("CTSN", "DCDN", "DSRN", "RIN", "RX"),
        "USB": ("VBUSPWRFAULT",),
    }
    wide = {"ENET": ("GMIIRXD", 8), "SDIO": ("DATAI", 4), "TTC": ("CLKI", 3)}
    for number in range(2):
        found |= {f"EMIO{unit}{number}{pin}": 1 for unit, own in pins.items() for pin in own}
        found |= {f"EMIO{unit}{number}{pin}": bits for unit, (pin, bits) in wide.items()}
    found |= {f"EMIO{pin}": 1 for pin in ("PJTAGTCK", "PJTAGTDI", "PJTAGTMS", "SRAMINTIN", "TRACECLK", "WDTCLKI")}
    found |= {"EMIOGPIOI": 64, "EVENTEVENTI": 1, "FPGAIDLEN": 1, "DDRARB": 4, "FCLKCLKTRIGN": 4, "IRQF2P": 20}
    found |= {"FTMDTRACEINCLOCK": 1, "FTMDTRACEINVALID": 1, "FTMDTRACEINDATA": 32, "FTMDTRACEINATID": 4}
    return found | {"FTMTF2PDEBUG": 32, "FTMTF2PTRIG": 4, "FTMTP2FTRIGACK": 4}


#: Width of every input, by name.
PS7_INPUTS: Mapping[str, int] = MappingProxyType(_inputs())
