"""The records of ``spec.isa`` as Amaranth layouts, for the RTL. An array of fields is an ``ArrayLayout``."""

from __future__ import annotations

from amaranth.lib import data

from edgemoe_hw.spec import isa
from edgemoe_hw.spec.fields import Record

__all__ = ["Begin", "ENGINE_PAYLOADS", "Header", "LayerNorm", "Load", "MatMul", "Store", "layout"]


def layout(record: type[Record]) -> data.StructLayout:
    """The record's members, the first in the lowest bits."""
    return data.StructLayout(
        {
            name: data.ArrayLayout(*shape) if isinstance(shape, tuple) else shape
            for name, shape in record.members().items()
        }
    )


Header = data.StructLayout({"opcode": isa.HEADER_FIELDS[0].width, **layout(isa.Header).members})
Begin, Load, Store = layout(isa.Begin), layout(isa.Load), layout(isa.Store)
LayerNorm, MatMul = layout(isa.LayerNorm), layout(isa.MatMul)
ENGINE_PAYLOADS = {engine: layout(isa.engine_payload(engine)) for engine in isa.Engine}
assert Header.size == isa.HEADER_BITS
