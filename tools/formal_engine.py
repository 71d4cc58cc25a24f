"""Decides the claims of a check by k-induction, and whether its covers can be reached."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from bitwuzla import Bitwuzla, Kind, Option, Options, Result
from formal_model import Model, Unrolling

from edgemoe_hw.formal.check import Check, Claim

__all__ = ["Verdict", "decide"]

Trace = list[dict[str, int]]
"""Values of all ports, a cycle each."""


@dataclass
class Verdict:
    """What came of one claim or cover.

    Attributes:
        claim: which
        method: how, as the table says it
        result: "proved" or "reached"; "violated", "not inductive", "open" (another claim failed) or "not reached"
        seconds: of the solver
        trace: of a counterexample
    """

    claim: Claim
    method: str
    result: str
    seconds: float
    trace: Trace = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return self.result in ("proved", "reached")


class _Search:
    """Cycles of a check under its assumptions, and the solver that has them."""

    def __init__(self, check: Check, model: Model, *, reset: bool):
        self._check, self._model = check, model
        self._unrolling = Unrolling(model, check.constants, reset=reset)
        options = Options()
        options.set(Option.PRODUCE_MODELS, True)
        self._solver = Bitwuzla(self._unrolling.tm, options)

    def reach(self, cycle: int) -> None:
        """Unroll up to ``cycle``, the first being 0."""
        while len(self._unrolling.frames) <= cycle:
            frame = self._unrolling.add_cycle()
            for port in self._check.assumptions:
                self._solver.assert_formula(self._unrolling.is_one(frame[self._model.outputs[port]]))

    def suppose(self, claims: Iterable[Claim], cycle: int) -> None:
        """Take ``claims`` for true in ``cycle``."""
        frame = self._unrolling.frames[cycle]
        for claim in claims:
            self._solver.assert_formula(self._unrolling.is_one(frame[self._model.outputs[claim.port]]))

    def find(self, claim: Claim, cycle: int, value: bool) -> Trace | None:
        """A run in which ``claim``'s bit has ``value`` in ``cycle``; None: there is none."""
        wanted = self._unrolling.is_one(self._unrolling.frames[cycle][self._model.outputs[claim.port]])
        if not value:
            wanted = self._unrolling.tm.mk_term(Kind.NOT, [wanted])
        if self._solver.check_sat(wanted) != Result.SAT:
            return None
        ports = {name: number for number, name in self._model.inputs.items()} | self._model.outputs
        return [
            {name: int(self._solver.get_value(frame[number]).value(10)) for name, number in ports.items()}
            for frame in self._unrolling.frames[: cycle + 1]
        ]


def decide(check: Check, model: Model) -> list[Verdict]:
    """All claims with a name, and, if none fails, all covers.

    Claims are proved together by k-induction: in the first k cycles from reset all hold, and where all held for k
    cycles, whatever the state before, each holds in the next. So each may rest on all others, and where one fails none
    of them is proved.
    """
    verdicts = _induction(check, model)
    shown = [verdict for verdict in verdicts if verdict.claim.name or verdict.trace]
    return shown if any(verdict.trace for verdict in verdicts) else shown + _covers(check, model)


def _induction(check: Check, model: Model) -> list[Verdict]:
    claims, steps, method = check.claims, check.steps, f"induction, k = {check.steps}"
    base, step = _Search(check, model, reset=True), _Search(check, model, reset=False)
    step.reach(steps)
    for cycle in range(steps):
        step.suppose(claims, cycle)
    verdicts = []
    for claim in claims:
        begin, found, result = time.perf_counter(), None, "proved"
        for cycle in range(steps):
            base.reach(cycle)
            found = found or base.find(claim, cycle, False)
        if found:
            result = "violated"
        elif found := step.find(claim, steps, False):
            result = "not inductive"
        verdicts.append(Verdict(claim, method, result, time.perf_counter() - begin, found or []))
        if found:
            return _from_reset(check, base, verdicts)
    return verdicts


def _from_reset(check: Check, base: _Search, verdicts: list[Verdict]) -> list[Verdict]:
    """What is left where the last verdict is that a claim failed: runs from reset that violate claims, up to the first
    cycle in which one with a name is; nothing of the proofs, which rest on what failed."""
    failed = verdicts[-1]
    left = [Verdict(claim, failed.method, "open", 0) for claim in check.claims]
    left[len(verdicts) - 1] = failed
    for cycle in range(check.depth + 1):
        base.reach(cycle)
        for number, verdict in enumerate(left):
            begin = time.perf_counter()
            if verdict.result != "violated" and (trace := base.find(verdict.claim, cycle, False)):
                seconds = time.perf_counter() - begin
                left[number] = Verdict(verdict.claim, "search from reset", "violated", seconds, trace)
        if any(verdict.result == "violated" and verdict.claim.name for verdict in left):
            break
    return left


def _covers(check: Check, model: Model) -> list[Verdict]:
    verdicts = []
    search = _Search(check, model, reset=True)
    for cover in check.covers:
        begin, found = time.perf_counter(), None
        for cycle in range(check.depth + 1):
            search.reach(cycle)
            if found := search.find(cover, cycle, True):
                break
        result = "reached" if found else "not reached"
        verdicts.append(Verdict(cover, "cover", result, time.perf_counter() - begin, found or []))
    return verdicts
