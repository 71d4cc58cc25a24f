"""Reads LayerNorm's residual rows and hands them on in groups of ``norm_lanes`` elements (docs/architecture.md)."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.layouts import LayerNorm
from edgemoe_hw.ports import SharedRead
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ROW_BITS, TOKEN_BITS
from edgemoe_hw.spec.timing import RESIDUAL_READ

__all__ = ["GroupEnds", "RowReader"]

_ROW_COUNT_BITS = 12  # of LayerNorm.src_rows


class GroupEnds(data.Struct):
    """A group of elements, or of destination channels, within its token."""

    valid: 1
    first: 1
    last: 1


class RowReader(wiring.Component):
    """Reads the rows of a command's tokens, as many tokens at a time as there are ``slots`` for.

    A row is requested when the groups of the one before will have left the row register as it arrives: both take
    ``RESIDUAL_READ`` cycles, so it is enough that requests keep the distance of a row's groups.

    Args:
        slots: tokens that may be on their way or kept

    Members:
        begin: a command with tokens begins, ``command`` is constant from then on
        freed: a token's slot is free again
        read: residual rows
        group: norm_lanes elements, when ``ends`` is valid
        ends: place of the group in its token
    """

    def __init__(self, config: AcceleratorConfig, slots: int) -> None:
        self._config = config
        self._slots = slots
        self._ratio = config.epilogue_lanes // config.norm_lanes  # groups a residual row
        super().__init__(
            {
                "begin": In(1),
                "command": In(LayerNorm),
                "freed": In(1),
                "read": Out(SharedRead(data.ArrayLayout(signed(16), config.epilogue_lanes))),
                "group": Out(16 * config.norm_lanes),
                "ends": Out(GroupEnds),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tokens, rows_left = Signal(TOKEN_BITS), Signal(_ROW_COUNT_BITS)
        command = self.command
        address, next_token = Signal(ROW_BITS), Signal(ROW_BITS)
        used = Signal(range(self._slots + 1))
        # What the request depends on, decided a cycle ahead.
        wanted, first_row, last_row, has_slot = Signal(), Signal(), Signal(), Signal()
        taken = Signal()  # a slot, in the cycle before: not yet in `used`
        spacing, spaced = Signal(range(self._ratio)), Signal()
        accepted = Signal()
        used_next = used + taken - self.freed
        m.d.comb += [
            self.read.valid.eq(wanted & spaced & (~first_row | (has_slot & ~taken))),
            self.read.row.eq(address),
            accepted.eq(self.read.valid & self.read.ready),
        ]
        m.d.sync += [taken.eq(accepted & first_row), used.eq(used_next), has_slot.eq(used_next != self._slots)]
        with m.If(accepted & (self._ratio > 1)):
            m.d.sync += [spacing.eq(self._ratio - 1), spaced.eq(0)]
        with m.Else():
            m.d.sync += [spacing.eq(Mux(spacing.any(), spacing - 1, 0)), spaced.eq(spacing <= 1)]
        with m.If(self.begin):
            m.d.sync += [
                tokens.eq(command.tokens),
                wanted.eq(1),
                rows_left.eq(command.src_rows),
                first_row.eq(1),
                last_row.eq(command.src_rows == 1),
                address.eq(command.src_base),
                next_token.eq(command.src_base + command.src_stride),
            ]
        with m.Elif(accepted):
            m.d.sync += [
                rows_left.eq(rows_left - 1),
                first_row.eq(0),
                last_row.eq(rows_left == 2),
                address.eq(address + 1),
            ]
            with m.If(last_row):
                m.d.sync += [
                    tokens.eq(tokens - 1),
                    wanted.eq(tokens != 1),
                    rows_left.eq(command.src_rows),
                    first_row.eq(1),
                    last_row.eq(command.src_rows == 1),
                    address.eq(next_token),
                    next_token.eq(next_token + command.src_stride),
                ]

        width = 16 * self._config.norm_lanes
        request = Signal(data.StructLayout({"valid": 1, "last": 1}))
        m.d.comb += [request.valid.eq(accepted), request.last.eq(last_row)]
        arriving = delay(m, request, RESIDUAL_READ, "arriving")
        register = Signal(16 * self._config.epilogue_lanes, reset_less=True)
        register_last, left = Signal(), Signal(range(self._ratio + 1))  # of its groups
        ends = self.ends
        with m.If(arriving.valid):
            m.d.sync += [
                register.eq(self.read.data),
                register_last.eq(arriving.last),
                left.eq(self._ratio),
                ends.valid.eq(1),
                ends.last.eq(arriving.last & (self._ratio == 1)),
            ]
        with m.Else():
            m.d.sync += [
                register.eq(register >> width),
                left.eq(Mux(ends.valid, left - 1, 0)),
                ends.valid.eq(left > 1),
                ends.last.eq(register_last & (left == 2)),
            ]
        with m.If(self.begin):
            m.d.sync += ends.first.eq(1)
        with m.Elif(ends.valid):
            m.d.sync += ends.first.eq(ends.last)
        m.d.comb += self.group.eq(register[:width])
        return m
