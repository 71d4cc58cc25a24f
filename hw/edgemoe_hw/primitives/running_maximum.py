"""Single-pass softmax: the row maximum runs along while scores are produced (docs/numerics.md, section 6)."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.delay import delay

__all__ = ["RunningMaximum"]

_LOWEST = -2048


class RunningMaximum(wiring.Component):
    """Maximum of each token's scores, whose groups of ``lanes`` come in order, gaps allowed.

    A tree over the group's lanes, two levels a cycle, then the running maximum over the token's groups. The write
    comes half the tree's levels (rounded up) after the last group.

    Members:
        valid: a group is there; first, last: of its token
        index: In(11), the token's row
        mask: which lanes have a score
        values: In(signed(12)).array(lanes)
        write_valid, write_row, write_data: the token's maximum
    """

    def __init__(self, lanes: int):
        self._lanes = lanes
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "index": In(11),
                "mask": In(lanes),
                "values": In(signed(12)).array(lanes),
                "write_valid": Out(1),
                "write_row": Out(11),
                "write_data": Out(signed(12)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        terms = [Mux(self.mask[lane], self.values[lane], _LOWEST) for lane in range(self._lanes)]
        levels = cycles = 0
        while len(terms) > 1:
            levels += 1
            ends_cycle = levels % 2 == 0 or len(terms) == 2
            cycles += ends_cycle
            domain = m.d.sync if ends_cycle else m.d.comb
            paired = []
            for index in range(0, len(terms), 2):
                term = Signal(signed(12), name=f"maximum_{len(terms)}_{index}")
                domain += term.eq(Mux(terms[index] > terms[index + 1], terms[index], terms[index + 1]))
                paired.append(term)
            terms = paired
        group, best, running = Signal(signed(12)), Signal(signed(12)), Signal(signed(12))
        valid, first, last = Signal(), Signal(), Signal()
        tags = Cat(self.valid & self.mask.any(), self.first, self.last, self.index)
        m.d.comb += [
            group.eq(terms[0]),
            Cat(valid, first, last, self.write_row).eq(delay(m, tags, cycles, "tags")),
            best.eq(Mux(first | (group > running), group, running)),
            self.write_valid.eq(valid & last),
            self.write_data.eq(best),
        ]
        with m.If(valid):
            m.d.sync += running.eq(best)
        return m
