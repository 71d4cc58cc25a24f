"""AXI4 and AXI4-Lite interfaces, one ``lib.stream`` a channel, as seen from the master."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.spec import regs
from edgemoe_hw.spec.constants import ADDRESS_BITS

__all__ = ["AxiLiteSignature", "AxiSignature", "BURST_INCR", "address_layout"]

BURST_INCR = 1
CACHE_BUFFERABLE = 0b0011  # normal, non-cacheable, bufferable: what Zynq's HP ports expect


def address_layout(id_bits: int) -> data.StructLayout:
    """AW and AR: the fields' names are AXI's without the channel prefix."""
    return data.StructLayout(
        {"id": id_bits, "addr": ADDRESS_BITS, "len": 8, "size": 3, "burst": 2, "cache": 4, "prot": 3}
    )


class AxiSignature(wiring.Signature):
    """AXI4 of 40-bit addresses, without exclusive access, QoS, regions and user signals.

    Args:
        data_bytes: bytes of a beat
        id_bits: width of the IDs, 1 to 4
    """

    def __init__(self, data_bytes: int, id_bits: int = 1):
        if not 1 <= id_bits <= 4:
            raise ValueError(f"id_bits must be between 1 and 4, not {id_bits!r}")
        self.data_bytes = data_bytes
        self.id_bits = id_bits
        address = address_layout(id_bits)
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(data.StructLayout({"data": 8 * data_bytes, "strb": data_bytes, "last": 1}))),
                "b": In(stream.Signature(data.StructLayout({"id": id_bits, "resp": 2}))),
                "ar": Out(stream.Signature(address)),
                "r": In(
                    stream.Signature(data.StructLayout({"id": id_bits, "data": 8 * data_bytes, "resp": 2, "last": 1}))
                ),
            }
        )


class AxiLiteSignature(wiring.Signature):
    """AXI4-Lite of 32 data bits."""

    def __init__(self, address_bits: int = regs.ADDRESS_BITS):
        self.address_bits = address_bits
        address = data.StructLayout({"addr": address_bits, "prot": 3})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(data.StructLayout({"data": 32, "strb": 4}))),
                "b": In(stream.Signature(data.StructLayout({"resp": 2}))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(data.StructLayout({"data": 32, "resp": 2}))),
            }
        )
