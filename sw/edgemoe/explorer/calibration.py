"""Fits the linear model of LUTs and flip-flops to runs of Yosys, and says how far it is from them.

A run that knows its units gives an equation for each part; one with totals only gives one for the sum. All are solved
together, each relative to what it is about, without negative coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.boards.synth import RESOURCES
from edgemoe.explorer.memories import rams, taken
from edgemoe.explorer.resources import FITTED, Coefficients, estimate
from edgemoe.explorer.terms import OWN, PARTS, part_of, terms
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["Run", "errors", "fit", "relative_errors"]

_PART_WEIGHT = 0.25  # an equation of a part's against one of a total: small parts need not be exact
_COLUMNS = [(part, name) for part, names in PARTS.items() for name in names]
Matrix = npt.NDArray[np.float64]
Column = tuple[str, str, "str | None"]  # part, term, and the family that it is for; None: all


@dataclass(frozen=True)
class Run:
    """One run of Yosys.

    Attributes:
        board: whose FPGA it was mapped to
        family: of that FPGA
        config: what was synthesized
        used: by resource
        units: LUTs and flip-flops by unit; empty where only totals are known
    """

    board: str
    family: str
    config: AcceleratorConfig
    used: Mapping[str, float]
    units: Mapping[str, Mapping[str, float]]


def fit(runs: Sequence[Run]) -> Coefficients:
    """Coefficients of every family that has runs."""
    families = sorted({run.family for run in runs})
    columns = [
        (part, name, family) for part, name in _COLUMNS for family in (families if (part, name) in OWN else [None])
    ]
    model: Coefficients = {family: {resource: {} for resource in FITTED} for family in families}
    for resource in FITTED:
        found = _nonnegative(*_equations(runs, resource, columns))
        for (part, name, owner), value in zip(columns, found, strict=True):
            for family in families if owner is None else [owner]:
                model[family][resource].setdefault(part, {})[name] = round(float(value), 4)
    return model


def _equations(runs: Sequence[Run], resource: str, columns: Sequence[Column]) -> tuple[Matrix, Matrix]:
    """Rows of terms and what they are to give: of each run's total, and of its parts where they are known."""
    rows, wanted = [], []
    for run in runs:
        values = terms(run.config)
        total = float(run.used[resource]) - (_lut_memories(run.config) if resource == "lut" else 0.0)
        everything = np.array([values[name] * (family in (None, run.family)) for _, name, family in columns])
        rows.append(everything / total)
        wanted.append(1.0)
        for part, found in _parts(run, resource):
            scale = _PART_WEIGHT / np.sqrt(total * max(found, 1.0))
            rows.append(everything * [owner == part for owner, _, _ in columns] * scale)
            wanted.append(found * scale)
    return np.array(rows), np.array(wanted)


def _lut_memories(config: AcceleratorConfig) -> float:
    return sum(taken(ram).lut for ram in rams(config))


def _parts(run: Run, resource: str) -> Iterator[tuple[str, float]]:
    if run.units:
        for part in PARTS:
            yield part, sum(found[resource] for unit, found in run.units.items() if part_of(unit) == part)


def _nonnegative(rows: Matrix, wanted: Matrix) -> Matrix:
    """Least squares without negative values: those that come out negative are left out, the worst first.

    Columns are scaled to the same length, and a thousandth of each pulls towards 0, so that two terms that no run tells
    apart share what they explain.
    """
    scale = np.maximum(np.linalg.norm(rows, axis=0), 1e-12)
    kept = [index for index in range(rows.shape[1]) if scale[index] > 1e-12]
    found = np.zeros(rows.shape[1])
    while kept:
        pull = 1e-3 * np.eye(len(kept))
        matrix = np.vstack([rows[:, kept] / scale[kept], pull])
        solution = np.linalg.lstsq(matrix, np.concatenate([wanted, np.zeros(len(kept))]), rcond=None)[0]
        if solution.min() >= 0:
            found[kept] = solution / scale[kept]
            break
        kept.pop(int(solution.argmin()))
    return found


def relative_errors(runs: Sequence[Run], model: Coefficients) -> list[dict[str, float]]:
    """Of each run: estimate / Yosys - 1 of every resource that it takes."""
    found = []
    for run in runs:
        guess = estimate(run.config, run.family, model)
        found.append(
            {resource: guess[resource] / run.used[resource] - 1 for resource in RESOURCES if run.used[resource]}
        )
    return found


def errors(runs: Sequence[Run]) -> dict[str, Any]:
    """How far the model is from Yosys, also from runs that it has not seen.

    Returns:
        by resource ``worst`` and ``worst_left_out``, relative, the latter by a model that was fitted to all runs of
        other configurations; and ``runs``, ``rows`` (one a run: board, array, and both errors of every resource)
    """
    seen = relative_errors(runs, fit(runs))
    unseen = []
    for run in runs:
        others = [other for other in runs if other.config.content_hash != run.config.content_hash]
        unseen += relative_errors([run], fit(others)) if any(o.family == run.family for o in others) else [{}]
    rows: list[dict[str, Any]] = [
        {
            "board": run.board,
            "array": f"{run.config.lanes_k}x{run.config.lanes_n}",
            "config_hash": run.config.content_hash,
            "error": _rounded(one),
            "left_out": _rounded(other),
        }
        for run, one, other in zip(runs, seen, unseen, strict=True)
    ]
    summary = {
        resource: {
            "worst": _worst(row["error"].get(resource, 0.0) for row in rows),
            "worst_left_out": _worst(row["left_out"].get(resource, 0.0) for row in rows),
        }
        for resource in RESOURCES
    }
    return {"runs": len(runs), "resources": summary, "rows": rows}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _worst(values: Iterator[float]) -> float:
    return max((abs(value) for value in values), default=0.0)
