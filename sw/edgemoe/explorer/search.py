"""The search: every candidate that fits is judged, or beaten by one that was; the rest is the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgemoe.boards.board import Board
from edgemoe.compiler.errors import CompileError
from edgemoe.explorer.cycles import Workload, estimated_cycles, floor_cycles, milliseconds
from edgemoe.explorer.resources import estimate, over, share
from edgemoe.explorer.space import candidates
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["STEP", "TOLERANCE", "Found", "Point", "choose", "front", "judge", "search"]

#: Relative difference of times below which two configurations are as fast: the cycle model is no better than that.
TOLERANCE = 0.01
#: Difference of shares of the FPGA, or relative one of LUTs, for which a slower configuration gets no place on the
#: front.
STEP = 0.02
_SLOWEST = 8.0  # of the fastest floor: the front ends there


@dataclass(frozen=True)
class Point:
    """A configuration and what the models say of it.

    Attributes:
        config: the configuration
        resources: LUTs, flip-flops, DSPs, block RAMs, UltraRAMs
        share: the largest share of the FPGA's that it takes
        cycles: of an inference, by workload
        ms: their times at the assumed clock, by workload
        score: geometric mean of these, ms
    """

    config: AcceleratorConfig
    resources: dict[str, float]
    share: float
    cycles: dict[str, int]
    ms: dict[str, float]
    score: float


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        front: Pareto front in time, share of the FPGA and LUTs, the fastest first
        chosen: of the front; ``choose`` has the rule
        legal, fitting, judged: how many candidates there were, fit the FPGA, and were scheduled
    """

    front: list[Point]
    chosen: Point
    legal: int
    fitting: int
    judged: int


def _mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def judge(config: AcceleratorConfig, board: Board, loads: Sequence[Workload]) -> Point:
    """What the models say of one configuration.

    Raises:
        CompileError: a model does not fit it
    """
    found = estimate(config, board.device.family)
    cycles = {load.given: estimated_cycles(load, config) for load in loads}
    ms = {name: milliseconds(count, config) for name, count in cycles.items()}
    return Point(config, found, share(found, board.device), cycles, ms, _mean(list(ms.values())))


def search(
    board: Board,
    loads: Sequence[Workload],
    depths: str = "least",
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Found:
    """The Pareto front of a board's configurations.

    Candidates are looked at by their floor, the fastest first. One is left out when another that was judged is as fast
    as its floor within ``TOLERANCE`` and takes no larger share of the FPGA and no more LUTs, but for ``STEP``.

    Args:
        board: whose FPGA, memory ports, DRAM and clock
        loads: at least one model
        depths: as ``space.candidates`` has it
        on_step: told how many candidates are done, of how many

    Raises:
        CompileError: no candidate takes the models
    """
    legal = list(candidates(board, [load.shape for load in loads], depths))
    queue = []
    for config in legal:
        found = estimate(config, board.device.family)
        if not over(found, board.device):
            floor = _mean([milliseconds(floor_cycles(load, config), config) for load in loads])
            queue.append((floor, share(found, board.device), found["lut"], config))
    queue.sort(key=lambda entry: entry[:3])
    points: list[Point] = []
    for number, (floor, part, lut, config) in enumerate(queue):
        on_step(number, len(queue))
        if floor > _SLOWEST * queue[0][0]:
            break
        if any(_no_better(point, floor, part, lut) for point in points):
            continue
        try:
            points.append(judge(config, board, loads))
        except CompileError:
            continue
    if not points:
        names = ", ".join(load.shape.name for load in loads)
        raise CompileError(
            f"no configuration of {board.name} takes {names}: of {len(legal)} legal ones {len(queue)} fit "
            f"{board.device.name}"
        )
    best = front(points)
    return Found(best, choose(best), len(legal), len(queue), len(points))


def _no_better(point: Point, floor: float, part: float, lut: float) -> bool:
    """Whether what was judged makes a candidate of this floor, share and LUTs superfluous."""
    as_fast = point.score <= floor * (1 + TOLERANCE)
    return as_fast and point.share <= part + STEP and point.resources["lut"] <= lut * (1 + STEP)


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in time, share and LUTs together, the fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=_objectives):
        if not any(all(a <= b for a, b in zip(_objectives(k), _objectives(point), strict=True)) for k in kept):
            kept.append(point)
    return kept


def _objectives(point: Point) -> tuple[float, float, float]:
    return point.score, point.share, point.resources["lut"]


def choose(points: Sequence[Point]) -> Point:
    """The fastest; of those that are as fast within ``TOLERANCE`` the one with the fewest LUTs."""
    limit = min(point.score for point in points) * (1 + TOLERANCE)
    return min((point for point in points if point.score <= limit), key=lambda p: (p.resources["lut"], p.score))
