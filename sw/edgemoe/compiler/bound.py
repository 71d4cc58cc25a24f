"""The least cycles and bytes of an inference, as docs/architecture.md defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemoe.bundle import Phase
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["Bound", "phase_bounds", "total_bound", "wasted_bytes"]


@dataclass(frozen=True)
class Bound:
    """The least that one phase of an inference takes.

    Attributes:
        name: of the phase
        macs: the model's own, without padding
        bytes_read: least DRAM bytes read for this image
        bytes_written: least DRAM bytes written
        cycles: max(MACs / MACs a cycle, bytes / DRAM bytes a cycle)
    """

    name: str
    macs: int
    bytes_read: int
    bytes_written: int
    cycles: float

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.bytes_read + self.bytes_written


def phase_bounds(
    config: AcceleratorConfig, phases: Sequence[Phase], queued: int, experts_used: Mapping[str, int]
) -> list[Bound]:
    """Each phase's bound.

    Args:
        config: of the accelerator
        phases: of a task (``Bundle.task(name).phases``)
        queued: tokens * top_k, the entries of all expert queues of a block
        experts_used: by phase name, experts whose queue is not empty for this image
    """
    bounds = []
    for phase in phases:
        used = experts_used.get(phase.name, 0)
        macs = phase.macs + phase.expert_macs * queued
        read = phase.bytes_read + phase.expert_bytes * used
        cycles = max(macs / config.macs_per_cycle, (read + phase.bytes_written) / config.dram_bytes_per_cycle)
        bounds.append(Bound(phase.name, macs, read, phase.bytes_written, cycles))
    return bounds


def wasted_bytes(phases: Sequence[Phase], expert_tokens: Mapping[str, Sequence[int]]) -> int:
    """Bytes that were fetched ahead of a gate for experts that no token of the image chose.

    Args:
        phases: of a task
        expert_tokens: by phase name, tokens that each expert got; of waves of tokens: in the last one, so that what
            was fetched for an expert of another wave counts as wasted with it
    """
    return sum(
        size
        for phase in phases
        if phase.name in expert_tokens
        for size, tokens in zip(phase.prefetched, expert_tokens[phase.name], strict=False)
        if not tokens
    )


def total_bound(config: AcceleratorConfig, bounds: Sequence[Bound]) -> tuple[float, float]:
    """``(bound, ideal)`` cycles: the sum over phases, and what perfect prefetch across phases would reach."""
    macs = sum(bound.macs for bound in bounds)
    size = sum(bound.bytes for bound in bounds)
    return (
        sum(bound.cycles for bound in bounds),
        max(macs / config.macs_per_cycle, size / config.dram_bytes_per_cycle),
    )
