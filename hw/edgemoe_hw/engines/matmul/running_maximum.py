"""Single-pass softmax: the row maximum runs along while scores are produced (docs/numerics.md, section 6)."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.ports import MemoryWrite
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.trees import maximum, pipelined_tree, tree_cycles, tree_maximum
from edgemoe_hw.spec.constants import SCORE_BITS, TOKEN_BITS

__all__ = ["RunningMaximum"]

_LOWEST = -(1 << (SCORE_BITS - 1))  # below every score
_FAN_IN = 2  # one level of comparisons a cycle


class _Group(data.Struct):
    """What travels beside a group's maximum."""

    first: 1
    last: 1
    index: TOKEN_BITS


class RunningMaximum(wiring.Component):
    """Maximum of each token's scores, whose groups of ``lanes`` come in order, gaps allowed.

    Masks, a tree over the group's lanes, then the running maximum over the token's groups. The write comes ``latency``
    cycles after the last group.

    Members:
        valid: a group is there; first, last: of its token
        index: In(TOKEN_BITS), the token's row
        mask: which lanes have a score; one at least of a valid group
        values: In(signed(SCORE_BITS)).array(lanes)
        write: the token's maximum
    """

    def __init__(self, lanes: int):
        self._lanes = lanes
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "index": In(TOKEN_BITS),
                "mask": In(lanes),
                "values": In(signed(SCORE_BITS)).array(lanes),
                "write": Out(MemoryWrite(signed(SCORE_BITS), row_bits=TOKEN_BITS)),
            }
        )

    @staticmethod
    def latency(lanes: int) -> int:
        """Cycles from a token's last group to its write."""
        return 1 + tree_cycles(lanes, _FAN_IN)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        scores = [Signal(signed(SCORE_BITS), name=f"score_{lane}", reset_less=True) for lane in range(self._lanes)]
        for lane, score in enumerate(scores):
            m.d.sync += score.eq(Mux(self.mask[lane], self.values[lane], _LOWEST))
        largest = pipelined_tree(m, scores, tree_maximum, _FAN_IN, "maximum")
        arriving = Signal(_Group)
        m.d.comb += [
            arriving.first.eq(self.first),
            arriving.last.eq(self.last),
            arriving.index.eq(self.index),
        ]
        valid = delay(m, self.valid, self.latency(self._lanes), "valid")
        group = delay(m, arriving, self.latency(self._lanes), "group", reset_less=True)
        best, running = Signal(signed(SCORE_BITS)), Signal(signed(SCORE_BITS), reset_less=True)
        m.d.comb += [
            best.eq(Mux(group.first, largest, maximum(largest, running))),
            self.write.valid.eq(valid & group.last),
            self.write.row.eq(group.index),
            self.write.data.eq(best),
        ]
        with m.If(valid):
            m.d.sync += running.eq(best)
        return m
