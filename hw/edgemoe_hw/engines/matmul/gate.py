"""Gate: top-k experts of every token, their scores, and one queue of tokens an expert (docs/numerics.md, section 7)."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, wiring
from amaranth.lib.memory import Memory, ReadPort
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgemoe_hw.engines.matmul.records import RowScale
from edgemoe_hw.engines.matmul.softmax import Reciprocal
from edgemoe_hw.ports import GateLogits, QueueRead
from edgemoe_hw.primitives.arithmetic import times, truncate
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.trees import maximum, pipelined_tree, tree_cycles, tree_maximum
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import (
    EXPERT_BITS,
    EXPERT_COUNT_BITS,
    MAX_EXPERTS,
    ROW_FACTOR_BITS,
    TOKEN_BITS,
    TOP_K_BITS,
)
from edgemoe_hw.spec.tables import EXP2G

__all__ = ["GateUnit"]

_BANKS = 4  # tokens whose logits are kept: arriving, waiting (two), being read
_POWER_BITS = 15  # of EXP2G's entries
_LARGEST_SCORE = 1 << 15
_SCORE_LATENCY = 5  # cycles from a winner to its score
_COUNT_LATENCY = 2  # of them, or fewer, from an expert to whether its queue is full


class _Group(data.Struct):
    """What travels beside a group's maximum."""

    valid: 1
    first: 1
    last: 1
    bank: range(_BANKS)
    token: TOKEN_BITS


class _Job(data.Struct):
    """A token whose logits are complete."""

    bank: range(_BANKS)
    token: TOKEN_BITS
    maximum: signed(16)


class _Expert(data.Struct):
    """What travels beside an expert's exponential."""

    valid: 1
    first: 1  # of its token
    last: 1
    number: EXPERT_BITS
    token: TOKEN_BITS
    delta: 17  # maximum - logit


class _Candidate(data.Struct):
    """One of a token's best experts so far."""

    valid: 1
    delta: 17
    power: _POWER_BITS
    expert: EXPERT_BITS


class _Entry(data.Struct):
    """A queue's next entry, but for the score."""

    valid: 1
    expert: EXPERT_BITS
    token: TOKEN_BITS
    last: 1  # of the token


class _Queued(data.Struct):
    """An entry of a queue in memory."""

    token: TOKEN_BITS
    score: ROW_FACTOR_BITS


class GateUnit(wiring.Component):
    """Fills the expert queues from gate logits.

    A token's logits come as groups of ``epilogue_lanes`` experts, in expert order, gaps allowed, no backpressure: first
    groups of two tokens, and last groups too, must be ``gate_interval`` cycles apart. ``num_experts`` and ``top_k``
    must not change while ``busy``, nor may ``clear`` be given while an earlier layer's tokens keep the unit busy.

    Members:
        logits: num_experts in 1..max_experts; top_k in 1..min(max_top_k, num_experts)
        busy: Out(1), from a first group (same cycle) until the token's last queue entry is written
        queue: read port of the queues
        counts: Out(TOKEN_BITS).array(max_experts), lengths of the queues
        overflow: Out(1), sticky until ``clear``: a queue would have exceeded max_tokens (the entry was dropped)
        overrun: Out(1), sticky until ``clear``: tokens came faster than ``gate_interval`` allows
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self._groups = -(-config.max_experts // config.epilogue_lanes)
        super().__init__(
            {
                "logits": In(GateLogits(config.epilogue_lanes)),
                "busy": Out(1),
                "queue": In(QueueRead()),
                "counts": Out(TOKEN_BITS).array(config.max_experts),
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
        starts = self.logits.valid & self.logits.first
        m.d.sync += in_flight.eq(in_flight + starts - finished)
        m.d.comb += self.busy.eq(starts | in_flight.any())

        logits = self._collect(m, jobs)
        candidates, total, complete, token = self._search(m, jobs, logits)
        self._emit(m, candidates, total, complete, token, finished)

        with m.If(self.logits.clear):
            m.d.sync += [self.overflow.eq(0), self.overrun.eq(0)]
        with m.If(jobs.w_en & ~jobs.w_rdy):
            m.d.sync += self.overrun.eq(1)
        return m

    def _collect(self, m: Module, jobs: fifo.SyncFIFO) -> ReadPort:
        """Stores the groups and their running maximum. Returns the logits' read port: a row is bank, then group."""
        logits, lanes, group_bits = self.logits, self._config.epilogue_lanes, ceil_log2(self._groups)
        m.submodules.logits = memory = Memory(
            shape=16 * lanes, depth=_BANKS << group_bits, init=[], attrs={"ram_style": "distributed"}
        )
        write = memory.write_port()
        bank, this_bank = Signal(range(_BANKS)), Signal(range(_BANKS))
        group, this_group = Signal(range(self._groups)), Signal(range(self._groups))
        left, these = Signal(EXPERT_COUNT_BITS), Signal(EXPERT_COUNT_BITS)  # experts from this group on
        m.d.comb += [
            this_bank.eq(bank + logits.first),
            this_group.eq(Mux(logits.first, 0, group)),
            these.eq(Mux(logits.first, logits.num_experts, left)),
            write.en.eq(logits.valid),
            write.addr.eq(Cat(this_group, this_bank)),
            write.data.eq(logits.values),
        ]
        with m.If(logits.valid):
            m.d.sync += [bank.eq(this_bank), group.eq(this_group + 1), left.eq(Mux(these > lanes, these - lanes, 0))]

        # Maximum: real experts only, one level of the tree a cycle, then the running maximum over the groups.
        arrived = Signal(_Group)
        m.d.sync += [
            arrived.valid.eq(logits.valid),
            arrived.first.eq(logits.valid & logits.first),
            arrived.last.eq(logits.valid & logits.last),
            arrived.bank.eq(this_bank),
        ]
        with m.If(logits.valid & logits.first):
            m.d.sync += arrived.token.eq(logits.token)
        masked = []
        for lane, value in enumerate(logits.values):
            kept = Signal(signed(16), name=f"masked_{lane}", reset_less=True)
            padding = these.matches(*range(min(lane, MAX_EXPERTS) + 1))  # these <= lane, without a carry
            m.d.sync += kept.eq(Mux(padding, -32768, value))
            masked.append(kept)
        largest = pipelined_tree(m, masked, tree_maximum, 2, "maximum")
        tag = delay(m, arrived, tree_cycles(lanes, 2), "tag")
        running, job = Signal(signed(16)), Signal(_Job)
        m.d.comb += [
            job.bank.eq(tag.bank),
            job.token.eq(tag.token),
            job.maximum.eq(Mux(tag.first, largest, maximum(largest, running))),
            jobs.w_data.eq(job),
            jobs.w_en.eq(tag.valid & tag.last),
        ]
        with m.If(tag.valid):
            m.d.sync += running.eq(job.maximum)
        return memory.read_port(domain="comb")

    def _search(
        self, m: Module, jobs: fifo.SyncFIFO, logits: ReadPort
    ) -> tuple[list[data.View], Signal, Signal, Signal]:
        """One expert a cycle: exponential, sum, insertion into the list of the best.

        Returns the list, the sum, a strobe in the cycle in which they are complete, and the token.
        """
        lanes = self._config.epilogue_lanes
        job, running = Signal(_Job), Signal()
        number, lane, group = Signal(EXPERT_BITS), Signal(range(lanes)), Signal(range(self._groups))
        logit, selected, issued = Signal(signed(16)), Signal(_Expert), Signal(_Expert)
        is_last, left = Signal(), Signal(EXPERT_COUNT_BITS)
        m.d.comb += [
            logits.addr.eq(Cat(group, job.bank)),
            jobs.r_en.eq(~running),
        ]
        with m.If(running):
            m.d.sync += [
                number.eq(number + 1),
                lane.eq(lane + 1),
                left.eq(left - 1),
                is_last.eq(left == 2),
                running.eq(~is_last),
            ]
            with m.If(lane == lanes - 1):
                m.d.sync += [lane.eq(0), group.eq(group + 1)]
        with m.Elif(jobs.r_rdy):
            m.d.sync += [
                job.eq(jobs.r_data),
                running.eq(1),
                number.eq(0),
                lane.eq(0),
                group.eq(0),
                left.eq(self.logits.num_experts),
                is_last.eq(self.logits.num_experts == 1),
            ]
        largest = Signal(signed(16))  # of the selected expert's token: the next job may be there already
        m.d.sync += [
            logit.eq(logits.data.word_select(lane, 16).as_signed()),
            largest.eq(job.maximum),
            selected.valid.eq(running),
            selected.first.eq(number == 0),
            selected.last.eq(is_last),
            selected.number.eq(number),
            selected.token.eq(job.token),
            issued.eq(selected),
            issued.delta.eq(largest - logit),
        ]

        mantissa, power = Signal(_POWER_BITS), Signal(_POWER_BITS)
        shifting = delay(m, issued, 1, "shifting")
        m.d.sync += [
            mantissa.eq(Array([Const(entry, _POWER_BITS) for entry in EXP2G])[issued.delta[2:10]]),
            power.eq(Mux(shifting.delta[14:].any(), 0, mantissa >> shifting.delta[10:14])),
        ]
        ready = delay(m, shifting, 1, "ready")
        total = Signal(_POWER_BITS + ceil_log2(self._config.max_experts))
        with m.If(ready.valid):
            m.d.sync += total.eq(Mux(ready.first, 0, total) + power)
        best = self._insert(m, ready, power)
        complete, token = Signal(), Signal(TOKEN_BITS)
        m.d.sync += [complete.eq(ready.valid & ready.last), token.eq(ready.token)]
        return best, total, complete, token

    def _insert(self, m: Module, expert: data.View, power: Signal) -> list[data.View]:
        """The token's best experts so far, best first."""
        best = [Signal(_Candidate, name=f"best_{i}") for i in range(self._config.max_top_k)]
        new = Signal(_Candidate)
        m.d.comb += [
            new.valid.eq(1),
            new.delta.eq(expert.delta),
            new.power.eq(power),
            new.expert.eq(expert.number),
        ]
        with m.If(expert.valid & expert.first):
            m.d.sync += best[0].eq(new)
            for slot in best[1:]:
                m.d.sync += slot.valid.eq(0)
        with m.Elif(expert.valid):
            # Strictly smaller, so that the earlier expert stays before an equal one.
            beats = [~slot.valid | (expert.delta < slot.delta) for slot in best]
            for i, slot in enumerate(best):
                with m.If(beats[i]):
                    m.d.sync += slot.eq(new)
                    if i:
                        with m.If(beats[i - 1]):
                            m.d.sync += slot.eq(best[i - 1])
        return best

    def _emit(
        self,
        m: Module,
        candidates: list[data.View],
        total: Signal,
        complete: Signal,
        token: Signal,
        finished: Signal,
    ) -> None:
        """Scores of the winners and their queue entries, one a cycle."""
        m.submodules.reciprocal = reciprocal = Reciprocal(len(total))
        m.d.comb += reciprocal.n.eq(total)
        winners = [Signal(_Candidate, name=f"winner_{i}") for i in range(len(candidates))]
        winner_token = Signal(TOKEN_BITS)
        waiting, left = Signal(Reciprocal.LATENCY - 1), Signal(TOP_K_BITS)  # waiting: one hot, 0 when over
        issue, last = Signal(), Signal()
        m.d.sync += waiting.eq(Cat(0, waiting[:-1]))

        # The winners shift through the first place. `total` may change as soon as the next token's search begins, but
        # what belongs to this one leaves the reciprocal's pipeline exactly when waiting ends and is then kept.
        scale, kept, first = Signal(RowScale), Signal(RowScale), Signal()
        m.d.comb += [scale.row.eq(reciprocal.row), scale.shift.eq(reciprocal.shift)]
        with m.If(~first):
            m.d.comb += scale.eq(kept)
        with m.If(complete):
            for winner, candidate in zip(winners, candidates, strict=True):
                m.d.sync += winner.eq(candidate)
            m.d.sync += [
                winner_token.eq(token),
                waiting.eq(1),
                left.eq(self.logits.top_k),
                last.eq(self.logits.top_k == 1),
                first.eq(1),
                issue.eq(0),
            ]
        with m.Elif(waiting[-1]):
            m.d.sync += issue.eq(1)
        with m.Elif(issue):
            m.d.sync += [left.eq(left - 1), last.eq(left == 2), issue.eq(~last), first.eq(0), kept.eq(scale)]
            for winner, following in zip(winners[:-1], winners[1:], strict=True):
                m.d.sync += winner.eq(following)
        score = self._score(m, winners[0].power, scale)

        issued = Signal(_Entry)
        m.d.comb += [
            issued.valid.eq(issue),
            issued.expert.eq(winners[0].expert),
            issued.token.eq(winner_token),
            issued.last.eq(issue & last),
        ]
        self._append(m, issued, score)
        m.d.comb += finished.eq(delay(m, issued.last, _SCORE_LATENCY, "finished"))

    def _score(self, m: Module, power: Signal, scale: data.View) -> Signal:
        """``min((power * row + 2^(b - 1)) >> b, 32768)``, ``_SCORE_LATENCY`` cycles later; b is at least 14."""
        multiplied, product = Signal(2 * _POWER_BITS), Signal(2 * _POWER_BITS)  # within the DSP
        shift = delay(m, (scale.shift - 1)[: len(scale.shift)], 2, "shift", reset_less=True)
        shifted, score = Signal.like(product), Signal(ROW_FACTOR_BITS)
        half = shifted[:ROW_FACTOR_BITS]
        rounded, is_large = Signal(ROW_FACTOR_BITS), Signal()
        m.d.sync += [
            multiplied.eq(power * scale.row[:15]),  # RECIP's entries are below 2^15
            product.eq(multiplied),
            shifted.eq(product >> shift),
            # From 2^16 - 1 on, (shifted + 1) >> 1 is the largest score or more.
            is_large.eq(shifted[ROW_FACTOR_BITS:].any() | half.all()),
            rounded.eq(half[1:] + half[0]),
            score.eq(Mux(is_large, _LARGEST_SCORE, rounded)),
        ]
        return score

    def _append(self, m: Module, winner: data.View, score: Signal) -> None:
        """The queue memory and its counters; ``score`` comes ``_SCORE_LATENCY`` cycles after its winner.

        The winner's count is chosen and judged in cycles of their own while the score is on its way. An expert's next
        win comes ``gate_interval`` later, less ``top_k``, which is more than the cycles until the count has changed.
        """
        max_tokens, max_experts = self._config.max_tokens, self._config.max_experts
        m.submodules.queue = queue = Memory(shape=_Queued.as_shape().size, depth=max_experts * max_tokens, init=[])
        write, read = queue.write_port(), queue.read_port()
        before = delay(m, winner, _SCORE_LATENCY - _COUNT_LATENCY, "before")
        choosing = delay(m, before, 1, "choosing")
        entry = delay(m, choosing, 1, "entry")
        chosen, count = Signal(TOKEN_BITS), Signal(TOKEN_BITS)
        counted, full = Signal(max_experts), Signal()
        found = data.View(_Queued, read.data)
        m.d.sync += [
            chosen.eq(Array([self.counts[i] for i in range(max_experts)])[before.expert]),
            count.eq(chosen),
            full.eq(chosen == max_tokens),
            counted.eq(
                Cat(choosing.valid & (choosing.expert == i) & (chosen != max_tokens) for i in range(max_experts))
            ),
        ]
        m.d.comb += [
            write.addr.eq(truncate(times(entry.expert, max_tokens) + count, len(write.addr))),
            write.data.eq(Cat(entry.token, score)),
            write.en.eq(entry.valid & ~full),
            read.addr.eq(truncate(times(self.queue.expert, max_tokens) + self.queue.index, len(read.addr))),
            self.queue.token.eq(found.token),
            self.queue.score.eq(found.score),
        ]
        with m.If(entry.valid & full):
            m.d.sync += self.overflow.eq(1)
        for i in range(max_experts):
            with m.If(counted[i]):
                m.d.sync += self.counts[i].eq(count + 1)
        with m.If(self.logits.clear):
            m.d.sync += [self.counts[i].eq(0) for i in range(max_experts)]
