"""Lowering of a MoE block's second half: the gate, and every expert with a queue.

An expert's LOADs are predicated: what no token chose is not fetched. That can be known when the gate has finished, and
memory would be idle until then. So experts that are likely to be used are fetched ahead of the gate, without a
predicate, as far as WEIGHT and PARAM have rows that nothing behind the gate has to give back; their MATMULs stay
predicated. What was fetched in vain is in the reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgemoe.compiler.builder import Builder, Chunk, Job, Phase, Piece, Region
from edgemoe.compiler.commands import Command
from edgemoe.compiler.cuts import Group, split_groups
from edgemoe.compiler.mlp import MlpPlan
from edgemoe.compiler.naive import activation_pass
from edgemoe.compiler.sequences import TokenSequences
from edgemoe.compiler.trace import Trace
from edgemoe_hw.spec.isa import MatMul, Mode, RowFactor
from edgemoe_hw.spec.timing import gate_interval
from edgemoe_models.graph.integer_graph import IntegerBlock, IntegerLinear

__all__ = ["ExpertsPlan", "emit_experts"]

_LIKELY = 0.5  # an expert that more than this share of the images uses is fetched ahead of the gate


def _emit_gate(
    b: Builder, trace: Trace, name: str, gates: Mapping[str, IntegerLinear], sequences: TokenSequences, x: Region
) -> Iterator[bool]:
    """Gate logits, top-k and the expert queues, one task and one group after the other.

    Yields when experts may work on the queues, and whether no token comes after: once, or every ``moe_group`` tokens.
    """
    layouts = {task: b.image.add_linear(f"{name}.gate.{task}", gates[task]) for task in sequences.tasks}
    interval = gate_interval(b.config, b.model.num_experts, b.model.top_k)
    gap = max(1, b.config.epilogue_cycles, *(-(-interval // layout.tiles) for layout in layouts.values()))
    tokens = b.model.num_tokens

    def emit(chunk: Chunk, group: Group, clear: bool) -> Command:
        return b.matmul(
            chunk,
            group,
            f"{name}.gate",
            MatMul(
                src_base=x.row(group.first),
                src_stride=x.stride,
                mode=Mode.GATE,
                min_gap=gap,
                max_base=group.first,
                num_experts=b.model.num_experts,
                top_k=b.model.top_k,
                gate_first=clear,
            ),
        )

    def emit_traced(chunk: Chunk, group: Group) -> None:
        command = emit(chunk, group, group.first == 0)
        if (group.first + group.count) % tokens == 0:  # a sequence's last
            for expert in range(b.model.num_experts):
                for tensor in (f"{name}.queues", f"{name}.gate_scores"):
                    trace.add_queued(tensor, command, tokens, 0, 1, expert, group.first // tokens)

    if not b.options.moe_group:
        for task, layout in layouts.items():
            b.stream([Job(layout, emit_traced, layout.tiles)], sequences.all_groups(sequences.of_task(task)))
        yield True
        return
    (layout,) = layouts.values()  # a naive order is of one sequence
    rows = b.weights.alloc(layout.tiles * layout.tile_rows, layout.name)
    resident = b.load_chunk(layout, 0, layout.tiles, rows)
    for group in split_groups(tokens, b.options.moe_group):
        emit(resident, group, clear=True)
        yield group.first + group.count == tokens
    b.release_chunk(resident)


@dataclass(frozen=True)
class ExpertsPlan:
    """Where a MoE block's experts work, and how likely each is to be used by an image (``use``, of every expert)."""

    mlp: MlpPlan
    use: Sequence[float]


def emit_experts(
    b: Builder,
    trace: Trace,
    name: str,
    block: IntegerBlock,
    sequences: TokenSequences,
    plan: ExpertsPlan,
    phase: Phase,
    preload: Sequence[Callable[[], object]],
) -> None:
    """The gate of every sequence's task, then every expert with a queue: fetched once for all of them, its tokens
    gathered, scaled and scattered.

    ``preload`` fetches what the next block starts with: memory has nothing else to do before the gate has decided.
    """
    experts = _Experts(b, trace, name, block, sequences, plan, phase)
    fetches = list(preload)
    for final in _emit_gate(b, trace, name, block.gates, sequences, plan.mlp.x):
        while fetches:
            fetches.pop(0)()
        b.load_activation(block.activation, f"{name}.activation")
        experts.prefetch()
        experts.emit(final)
    fc1, fc2 = block.expert_fc1[0], block.expert_fc2[0]  # all have one shape
    phase.expert_macs = fc1.weight.size + fc2.weight.size
    phase.expert_bytes = -(-phase.expert_macs * fc1.bits // 8) + 4 * (fc1.outputs + fc2.outputs)
    for gate in (block.gates[task] for task in sequences.tasks):
        phase.macs += sequences.images * b.model.num_tokens * gate.weight.size
        phase.bytes_read += gate.weight.size + 4 * gate.outputs


class _Experts:
    """One block's experts, in ascending order, as the residual stream's sums saturate in that order."""

    def __init__(
        self,
        b: Builder,
        trace: Trace,
        name: str,
        block: IntegerBlock,
        sequences: TokenSequences,
        plan: ExpertsPlan,
        phase: Phase,
    ) -> None:
        self.b, self.trace, self.name, self.plan, self.phase = b, trace, name, plan, phase
        self.stride = -(-b.model.expert_hidden // b.config.lanes_k)
        self.rows = sequences.all_tokens * self.stride  # of one expert's hidden layer
        self.every = Group(0, sequences.all_tokens)  # whichever they are
        self.sequences = sequences
        self.linears = list(zip(block.expert_fc1, block.expert_fc2, strict=True))
        self.held: dict[int, list[Chunk]] = {}  # fetched ahead of the gate, by expert
        self.free = 0  # rows of WEIGHT that chunks are cut for

    def likely(self) -> list[int]:
        """Experts that are fetched before it is known whether they are used, if there is room."""
        chosen, experts = self.b.options.expert_prefetch, range(len(self.linears))
        if chosen == "off":
            return []
        if chosen != "auto":
            return [*experts][: int(chosen)]
        return [number for number in experts if self.plan.use[number] >= _LIKELY]

    def prefetch(self) -> None:
        """Fetch likely experts, in the order of their use, as long as their rows are free without the gate."""
        likely, b = self.likely(), self.b
        self.free, self.held = b.weights.longest_free(), {}
        one = [*b.pieces(self._jobs(0, False), self.free)]  # of each expert
        between = likely != [*range(len(likely))]  # an expert between two is streamed beside what is held
        with b.kept_free(one, 2 if between else 0):
            for number in likely:
                for piece in b.pieces(self._jobs(number, False), self.free):
                    if not b.has_room(piece):
                        return
                    self.held.setdefault(number, []).append(b.load_piece(piece))
                    self._count(number, piece)

    def _count(self, number: int, piece: Piece) -> None:
        """Bytes that are fetched for an expert whether it is used or not."""
        weights, params = self.b.piece_rows(piece)
        size = self.b.config.row_bytes
        self.phase.prefetched = self.phase.prefetched or [0] * len(self.linears)
        self.phase.prefetched[number] += weights * size["WEIGHT"] + params * size["PARAM"]

    def emit(self, final: bool) -> None:
        """All experts for the tokens in their queues; ``final``: the residual stream is complete afterwards."""
        for number in range(len(self.linears)):
            jobs = self._jobs(number, final and number == len(self.linears) - 1)
            held = [(job, chunk) for chunk in self.held.pop(number, []) for job in jobs if job.layout == chunk.layout]
            there = {id(job): chunk.tile + chunk.tiles for job, chunk in held}  # in ascending order
            rest = [replace(job, first=there.get(id(job), 0)) for job in jobs]
            self.b.expert = number
            self.b.stream(rest, [self.every], held=held, free=self.free)
            self.b.expert = None

    def _jobs(self, number: int, last: bool) -> list[Job]:
        """Both layers of one expert; ``last``: it completes the block."""
        label = f"{self.name}.experts.{number}"
        fc1, fc2 = (
            self.b.image.add_linear(f"{label}.{kind}", linear)
            for kind, linear in zip(("fc1", "fc2"), self.linears[number], strict=True)
        )
        slots = min(self.plan.mlp.hidden_rows // self.rows, 2)
        hidden = Region(self.plan.mlp.hidden_row + number % slots * self.rows, self.stride)
        return [
            Job(fc1, lambda chunk, group: self._first(chunk, group, hidden, number)),
            Job(fc2, lambda chunk, group: self._second(chunk, group, hidden, label, last)),
        ]

    def _first(self, chunk: Chunk, group: Group, hidden: Region, number: int) -> None:
        x, label = self.plan.mlp.x, f"{self.name}.experts.{number}"
        command = self.b.matmul(
            chunk,
            group,
            f"{label}.fc1",
            MatMul(
                use_queue=True,
                gather=True,
                src_base=x.base,
                src_stride=x.stride,
                dst_base=hidden.base,
                dst_stride=hidden.stride,
                dst_channel=chunk.channel,
                activate=True,
            ),
        )
        if not self.b.options.moe_group:  # the reference's hidden rows are those of a whole queue
            last = self.sequences.places - 1
            self.trace.add_queued(f"{label}.hidden", command, group.count, chunk.channel, chunk.channels, number, last)

    def _second(self, chunk: Chunk, group: Group, hidden: Region, label: str, last: bool) -> None:
        if chunk.tile == 0:
            activation_pass(self.b, label, chunk, group, hidden, queued=True)
        residual = self.plan.mlp.residual
        command = self.b.matmul(
            chunk,
            group,
            f"{label}.fc2",
            MatMul(
                use_queue=True,
                scatter=True,
                src_base=hidden.base,
                src_stride=hidden.stride,
                mode=Mode.RESIDUAL,
                accumulate=True,
                row_factor=RowFactor.GATE,
                dst_base=residual.base,
                dst_stride=residual.stride,
                dst_channel=chunk.channel,
            ),
        )
        if last:
            for place in range(self.sequences.places):
                whole = Group(place * self.sequences.tokens, self.sequences.tokens)
                self.trace.add(f"{self.name}.residual2", command, whole, chunk.channel, chunk.channels)
