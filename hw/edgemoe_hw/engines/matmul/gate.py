"""Gate: top-k experts of every token, their scores, and one queue of tokens an expert (docs/numerics.md, section 7)."""

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, fifo, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.engines.matmul.softmax import Reciprocal
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import TOKEN_BITS
from edgemoe_hw.spec.tables import EXP2G

__all__ = ["GateUnit"]

_BANKS = 4  # tokens whose logits are kept: arriving, waiting (two), being read


class _Job(data.Struct):
    """A token whose logits are complete."""

    bank: range(_BANKS)
    token: TOKEN_BITS
    maximum: signed(16)


@dataclass
class _Candidate:
    """One of the best experts so far: registers, in the order best first."""

    valid: Signal
    delta: Signal
    power: Signal
    expert: Signal

    @classmethod
    def create(cls, name: str) -> "_Candidate":
        return cls(
            Signal(name=f"{name}_valid"),
            Signal(17, name=f"{name}_delta"),
            Signal(15, name=f"{name}_power"),
            Signal(5, name=f"{name}_expert"),
        )

    def assign(self, other: "_Candidate") -> list:
        return [
            self.valid.eq(other.valid),
            self.delta.eq(other.delta),
            self.power.eq(other.power),
            self.expert.eq(other.expert),
        ]


class GateUnit(wiring.Component):
    """Fills the expert queues from gate logits.

    A token's logits come as groups of ``epilogue_lanes`` experts, in expert order, gaps allowed, no backpressure: first
    groups of two tokens, and last groups too, must be ``gate_interval`` cycles apart. ``num_experts`` and ``top_k``
    must not change while ``busy``, nor may ``clear`` be given while an earlier layer's tokens keep the unit busy.

    Members:
        logits_valid: In(1), first: In(1), last: In(1), token: In(11) (read with the first group)
        logits: In(signed(16)).array(epilogue_lanes)
        num_experts: In(6), 1..max_experts; top_k: In(3), 1..min(max_top_k, num_experts)
        clear: In(1), empties all queues; at the latest with the first group
        busy: Out(1), from a first group (same cycle) until the token's last queue entry is written
        read_expert: In(5), read_index: In(11), read_token: Out(11), read_score: Out(16), in the next cycle
        counts: Out(11).array(max_experts), lengths of the queues
        overflow: Out(1), sticky until ``clear``: a queue would have exceeded max_tokens (the entry was dropped)
        overrun: Out(1), sticky until ``clear``: tokens came faster than ``gate_interval`` allows
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "logits_valid": In(1),
                "logits": In(signed(16)).array(config.epilogue_lanes),
                "first": In(1),
                "last": In(1),
                "token": In(TOKEN_BITS),
                "num_experts": In(6),
                "top_k": In(3),
                "clear": In(1),
                "busy": Out(1),
                "read_expert": In(5),
                "read_index": In(TOKEN_BITS),
                "read_token": Out(TOKEN_BITS),
                "read_score": Out(16),
                "counts": Out(11).array(config.max_experts),
                "overflow": Out(1),
                "overrun": Out(1),
            }
        )

    @property
    def config(self) -> AcceleratorConfig:
        return self._config

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.jobs = jobs = fifo.SyncFIFO(width=_Job.as_shape().size, depth=_BANKS)
        finished = Signal()

        in_flight = Signal(range(2 * _BANKS + 1))
        starts = self.logits_valid & self.first
        m.d.sync += in_flight.eq(in_flight + starts - finished)
        m.d.comb += self.busy.eq(starts | in_flight.any())

        read_logit = self._collect(m, jobs)
        candidates, total, token, complete = self._search(m, jobs, read_logit)
        self._emit(m, candidates, total, token, complete, finished)

        with m.If(self.clear):
            m.d.sync += [self.overflow.eq(0), self.overrun.eq(0)]
        with m.If(jobs.w_en & ~jobs.w_rdy):
            m.d.sync += self.overrun.eq(1)
        return m

    def _collect(self, m: Module, jobs: fifo.SyncFIFO) -> tuple[Signal, Signal, Signal]:
        """Stores the groups and their running maximum. Returns a logit's (bank and group, lane, value) read port."""
        lanes = self._config.epilogue_lanes
        groups = -(-self._config.max_experts // lanes)
        m.submodules.logits = memory = Memory(
            shape=16 * lanes, depth=_BANKS << (groups - 1).bit_length(), init=[], attrs={"ram_style": "distributed"}
        )
        write = memory.write_port()
        read = memory.read_port(domain="comb")

        bank = Signal(range(_BANKS))
        group = Signal(range(groups))
        this_bank = Mux(self.first, bank + 1, bank)[: len(bank)]
        this_group = Mux(self.first, 0, group)[: len(group)]
        m.d.comb += [
            write.en.eq(self.logits_valid),
            write.addr.eq(Cat(this_group[: (groups - 1).bit_length()], this_bank)),
            write.data.eq(Cat(*[self.logits[i] for i in range(lanes)])),
        ]
        with m.If(self.logits_valid):
            m.d.sync += [bank.eq(this_bank), group.eq(this_group + 1)]

        # Maximum: one tree level a cycle, then the running maximum over the groups.
        base = this_group * lanes
        level = []
        for i in range(lanes):
            value = Signal(signed(16), name=f"masked_{i}")
            m.d.sync += value.eq(Mux(base + i < self.num_experts, self.logits[i], -32768))
            level.append(value)
        token = Signal(TOKEN_BITS)
        starts = self.logits_valid & self.first
        with m.If(starts):
            m.d.sync += token.eq(self.token)
        tags = delay(m, Cat(self.logits_valid, starts, self.logits_valid & self.last, this_bank), 1, "tags")
        tags = Cat(tags, token)
        depth = 0
        while len(level) > 1:
            following = []
            for i in range(0, len(level), 2):
                value = Signal(signed(16), name=f"maximum_{depth}_{i}")
                pair = level[i : i + 2]
                m.d.sync += value.eq(Mux(pair[0] > pair[-1], pair[0], pair[-1]))
                following.append(value)
            level = following
            depth += 1
        tags = delay(m, tags, depth, "tree_tags")
        valid, is_first, is_last, tag_bank = tags[0], tags[1], tags[2], tags[3 : 3 + len(bank)]
        running = Signal(signed(16))
        maximum = Signal(signed(16))
        m.d.comb += maximum.eq(Mux(is_first | (level[0] > running), level[0], running))
        with m.If(valid):
            m.d.sync += running.eq(maximum)
        job = Signal(_Job)
        m.d.comb += [
            job.bank.eq(tag_bank),
            job.token.eq(tags[3 + len(bank) :]),
            job.maximum.eq(maximum),
            jobs.w_data.eq(job),
            jobs.w_en.eq(valid & is_last),
        ]

        lane = Signal(range(lanes))
        value = Signal(signed(16), name="read_value")
        m.d.comb += value.eq(read.data.word_select(lane, 16))
        return read.addr, lane, value

    def _search(
        self, m: Module, jobs: fifo.SyncFIFO, read_logit: tuple[Signal, Signal, Signal]
    ) -> tuple[list[_Candidate], Signal, Signal, Signal]:
        """One expert a cycle: exponential, sum, insertion into the list of the best.

        Returns the list, the sum, the token and a strobe in the cycle in which they are complete.
        """
        address, lane, value = read_logit
        lanes = self._config.epilogue_lanes
        job = Signal(_Job)
        running = Signal()
        expert = Signal(5)
        group = Signal(max(1, len(address) - (_BANKS - 1).bit_length()))
        is_last = Signal()
        m.d.comb += [
            is_last.eq(expert + 1 == self.num_experts),
            address.eq(Cat(group[: len(address) - len(job.bank)], job.bank)),
            jobs.r_en.eq(~running),
        ]
        with m.If(running):
            m.d.sync += [expert.eq(expert + 1), lane.eq(lane + 1), running.eq(~is_last)]
            with m.If(lane == lanes - 1):
                m.d.sync += [lane.eq(0), group.eq(group + 1)]
        with m.Elif(jobs.r_rdy):
            m.d.sync += [job.eq(jobs.r_data), running.eq(1), expert.eq(0), lane.eq(0), group.eq(0)]

        delta = Signal(17)
        m.d.sync += delta.eq(job.maximum - value)
        delta_2 = delay(m, delta, 1, "delta_2")
        delta_3 = delay(m, delta_2, 1, "delta_3")
        tags = delay(m, Cat(running, expert == 0, is_last, expert, job.token), 3, "search_tags")
        valid, is_first, is_last, expert_3, token = tags[0], tags[1], tags[2], tags[3:8], tags[8:]

        mantissa = Signal(15)
        power = Signal(15)
        m.d.sync += mantissa.eq(Array([Const(entry, 15) for entry in EXP2G])[delta[2:10]])
        m.d.sync += power.eq(Mux(delta_2[14:].any(), 0, mantissa >> delta_2[10:14]))

        total = Signal(15 + (self._config.max_experts - 1).bit_length())
        slots = [_Candidate.create(f"slot_{i}") for i in range(self._config.max_top_k)]
        new = _Candidate(Const(1, 1), delta_3, power, expert_3)
        none = _Candidate(Const(0, 1), delta_3, power, expert_3)
        with m.If(valid):
            m.d.sync += total.eq(Mux(is_first, 0, total) + power)
            with m.If(is_first):
                for slot in slots:
                    m.d.sync += slot.assign(new if slot is slots[0] else none)
            with m.Else():
                # Strictly smaller, so that the earlier expert stays before an equal one.
                beats = [~slot.valid | (delta_3 < slot.delta) for slot in slots]
                for i, slot in enumerate(slots):
                    with m.If(beats[i]):
                        m.d.sync += slot.assign(new)
                        if i:
                            with m.If(beats[i - 1]):
                                m.d.sync += slot.assign(slots[i - 1])
        complete = delay(m, Cat(valid & is_last, token), 1, "complete")
        return slots, total, complete[1:], complete[0]

    def _emit(
        self, m: Module, slots: list[_Candidate], total: Signal, token: Value, complete: Value, finished: Signal
    ) -> None:
        """Scores of the winners and their queue entries, one a cycle."""
        m.submodules.reciprocal = reciprocal = Reciprocal(len(total))
        m.d.comb += reciprocal.n.eq(total)
        winners = [_Candidate.create(f"winner_{i}") for i in range(len(slots))]
        winner_token = Signal(TOKEN_BITS)
        wait = Signal(range(Reciprocal.LATENCY + 1))
        left = Signal(3)

        # The winners shift through slot 0. `total` may change as soon as the next token's search begins, but what
        # belongs to this one leaves the reciprocal's pipeline exactly when `wait` ends and is then kept.
        row = Signal(16)
        shift = Signal.like(reciprocal.shift)
        m.d.comb += [row.eq(reciprocal.row), shift.eq(reciprocal.shift)]
        kept_row = Signal.like(row)
        kept_shift = Signal.like(shift)
        first_winner = Signal()
        with m.If(complete):
            for winner, slot in zip(winners, slots, strict=True):
                m.d.sync += winner.assign(slot)
            m.d.sync += [
                winner_token.eq(token),
                wait.eq(Reciprocal.LATENCY - 1),
                left.eq(self.top_k),
                first_winner.eq(1),
            ]
        with m.Elif(wait.any()):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(left.any()):
            m.d.sync += [left.eq(left - 1), first_winner.eq(0)]
            for winner, following in zip(winners[:-1], winners[1:], strict=True):
                m.d.sync += winner.assign(following)
            with m.If(first_winner):
                m.d.sync += [kept_row.eq(row), kept_shift.eq(shift)]
        issue = ~complete & ~wait.any() & left.any()

        product = Signal(31)
        score_shift = Signal.like(shift)
        m.d.sync += [
            product.eq(winners[0].power * Mux(first_winner, row, kept_row)[:15]),
            score_shift.eq(Mux(first_winner, shift, kept_shift)),
        ]
        score = Signal(16)
        shifted = Signal(31)
        half = Signal(32)
        m.d.sync += shifted.eq(product >> (score_shift - 1)[: len(shift)])  # floor_log2(N) is at least 14
        m.d.comb += half.eq(shifted + 1)
        m.d.sync += score.eq(Mux(half[1:] > 32768, 32768, half[1:]))
        tags = delay(m, Cat(issue, winners[0].expert, winner_token, issue & (left == 1)), 3, "emit_tags")
        self._queues(m, tags[0], tags[1:6], tags[6 : 6 + TOKEN_BITS], score)
        m.d.comb += finished.eq(tags[-1])

    def _queues(self, m: Module, append: Value, expert: Value, token: Value, score: Signal) -> None:
        """The queue memory and its counters."""
        max_tokens, max_experts = self._config.max_tokens, self._config.max_experts
        m.submodules.queue = queue = Memory(shape=TOKEN_BITS + 16, depth=max_experts * max_tokens, init=[])
        write = queue.write_port()
        read = queue.read_port()
        counts = Array([self.counts[i] for i in range(max_experts)])
        count = Signal(11)
        full = Signal()
        m.d.comb += [
            count.eq(counts[expert]),
            full.eq(count == max_tokens),
            write.addr.eq(_times(expert, max_tokens) + count),
            write.data.eq(Cat(token, score)),
            write.en.eq(append & ~full),
            read.addr.eq(_times(self.read_expert, max_tokens) + self.read_index),
            self.read_token.eq(read.data[:TOKEN_BITS]),
            self.read_score.eq(read.data[TOKEN_BITS:]),
        ]
        with m.If(append):
            with m.If(full):
                m.d.sync += self.overflow.eq(1)
            with m.Else():
                m.d.sync += counts[expert].eq(count + 1)
        with m.If(self.clear):
            m.d.sync += [self.counts[i].eq(0) for i in range(max_experts)]


def _times(value: Value, constant: int) -> Value:
    """Product with a constant as shifted additions, so that no tool spends a DSP on it."""
    terms = [value << bit for bit in range(constant.bit_length()) if constant >> bit & 1]
    return sum(terms[1:], terms[0])
