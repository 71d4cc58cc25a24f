"""One entry of a queue, chosen at any time and followed through: for claims of order and content."""

from amaranth.hdl import Mux, Signal, Value, ValueLike

from edgemoe_hw.formal.check import Check

__all__ = ["Tracked"]


class Tracked:
    """An entry that the solver chooses as it goes in; after it has come out, it chooses another.

    What holds of a chosen one holds of each, since any may be chosen. As none leaves before those in front of it and
    the entries are counted, none is lost, doubled or overtaken.

    Args:
        check: gets a free input, ``<name>_mark``: choose the entry that goes in
        pushed, popped: an entry goes in, comes out
        word: what goes in
        most: entries that may be inside

    Attributes:
        count: entries inside
        chosen: one of them is followed
        ahead: entries in front of it
        word: what it was
        leaves: the cycle in which it comes out
    """

    def __init__(
        self, check: Check, name: str, *, pushed: ValueLike, popped: ValueLike, word: ValueLike, most: int
    ) -> None:
        goes_in, comes_out, content = (Value.cast(value) for value in (pushed, popped, word))
        mark = check.free(f"{name}_mark")
        self.count = Signal(range(2 * most + 1), name=f"{name}_count")
        self.chosen = Signal(name=f"{name}_chosen")
        self.ahead = Signal.like(self.count, name=f"{name}_ahead")
        self.word = Signal.like(content, name=f"{name}_word", init=0)
        self.leaves = Signal(name=f"{name}_leaves")
        check.m.d.comb += self.leaves.eq(self.chosen & (self.ahead == 0) & comes_out)
        check.m.d.sync += self.count.eq(self.count + goes_in - comes_out)
        with check.m.If(self.chosen):
            check.m.d.sync += self.ahead.eq(Mux(self.ahead == 0, 0, self.ahead - comes_out))
            with check.m.If(self.leaves):
                check.m.d.sync += self.chosen.eq(0)
        with check.m.Elif(goes_in & mark):
            check.m.d.sync += [self.chosen.eq(1), self.ahead.eq(self.count - comes_out), self.word.eq(content)]
        check.show(f"{name}_chosen_entry", self.chosen)
        check.show(f"{name}_entries_ahead", self.ahead)
        check.show(f"{name}_chosen_word", self.word)
        check.invariant(self.count <= most)
        check.invariant(~self.chosen | (self.ahead < self.count))
