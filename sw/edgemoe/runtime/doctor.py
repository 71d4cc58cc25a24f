"""``edgemoe boards doctor``: what whoever helps from afar would ask about this machine, in one JSON file.

Boards have no command line; there ``doctor.sh``, which `make flash` copies, starts this module. It works without PYNQ
and off a board too, and says so. The file is written before the self-test begins as well, for a board that freezes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgemoe.extras import PYNQ_PINS
from edgemoe.packaged_bundles import bundle_names
from edgemoe.runtime import surroundings
from edgemoe.runtime.surroundings import without_names
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import parse_json

__all__ = ["OUT", "examine", "main", "probe_pynq", "problems", "run_module", "summary"]

OUT = Path("edgemoe-doctor.json")
_PACKAGED = "m3vit-micro-w8a8-pynq-z2"
_PROBE_SECONDS, _SELFTEST_SECONDS = 120, 900
_MOST_LINES = 200  # of an output, its last ones


def examine(
    out: Path = OUT,
    bundle: Path | str | None = None,
    bitstream: Path | None = None,
    selftest: bool = True,
    seconds: float = _SELFTEST_SECONDS,
) -> dict[str, Any]:
    """Examine this machine and write what was found to ``out``.

    Args:
        out: the file, which is written before the self-test and after it
        bundle: for the self-test; default: what `make flash` copied beside the newest overlay, else the packaged one
        bitstream: for the self-test; default: the newest overlay
        selftest: run it: on the accelerator where this is a board with PYNQ and an overlay, else on the reference
        seconds: after which the self-test is given up

    Returns:
        What is in the file: ``problems``, ``versions``, ``system``, ``board``, ``pynq``, ``overlays``, ``selftest``

    Raises:
        SaveError: the file cannot be written
    """
    found: dict[str, Any] = {
        "edgemoe_doctor": 1,
        "written": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "versions": surroundings.versions(),
        "system": surroundings.system(),
        "board": surroundings.board(),
        "overlays": surroundings.overlays(),
    }
    found["pynq"] = probe_pynq() if found["versions"]["pynq"] else {"error": "pynq is not installed"}
    arguments = _selftest_arguments(found, bundle, bitstream) if selftest else "not asked for"
    if isinstance(arguments, str):
        found["selftest"] = {"not_run": arguments}
    else:
        found["selftest"] = {"arguments": arguments, "not_run": "it had not ended when this was written"}
        _write(out, found)
        found["selftest"] = {"arguments": arguments, **run_module(["edgemoe.runtime.selftest", *arguments], seconds)}
    return _write(out, found)


def _write(out: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Write it without names of people and of the machine; returns what was written."""
    told: dict[str, Any] = _without_names({**found, "problems": problems(found)})
    write_text(out, json.dumps(told, indent=1) + "\n")
    return told


def _without_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_names(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_names(each) for each in value]
    return without_names(value) if isinstance(value, str) else value


def probe_pynq() -> dict[str, Any]:
    """What PYNQ says, from a process of its own."""
    done = run_module(["edgemoe.runtime.platforms.pynq_probe"], _PROBE_SECONDS)
    for line in reversed(done["output"]):  # libraries of PYNQ's print too, some at their end
        with contextlib.suppress(ValueError):
            found = parse_json(line)
            if isinstance(found, dict):
                return found
    return {"error": f"PYNQ ended its process ({done['code']})", "output": done["output"]}


def _selftest_arguments(found: dict[str, Any], bundle: Path | str | None, bitstream: Path | None) -> list[str] | str:
    """Of the self-test's module; or why there is nothing to test."""
    newest = found["overlays"][-1]["bitstream"] if found["overlays"] else None
    chosen = str(bitstream) if bitstream is not None else newest
    if bundle is None:
        beside = None if chosen is None else Path(chosen).with_name("bundle.emoe")
        if beside is not None and beside.is_file():
            bundle = beside
        elif _PACKAGED in bundle_names():
            bundle = _PACKAGED
        else:
            return "there is no bundle: name one with --bundle"
    if _is_pynq(found) and chosen is not None:
        return ["--device", "pynq", "--bundle", str(bundle), "--bitstream", chosen]
    return ["--device", "reference", "--bundle", str(bundle), "--images", "1"]


def _is_pynq(found: dict[str, Any]) -> bool:
    return "error" not in found["pynq"]


def run_module(arguments: list[str], seconds: float) -> dict[str, Any]:
    """A module in a process of its own: ``code`` (None: given up), ``seconds``, and its ``output``'s last lines."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONFAULTHANDLER": "1"}
    begin = time.monotonic()
    code: int | None = None
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=seconds,
            check=False,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    lines = output.decode("utf-8", "replace").splitlines()[-_MOST_LINES:]
    return {"code": code, "seconds": round(time.monotonic() - begin, 1), "output": lines}


def problems(found: dict[str, Any]) -> list[str]:
    """What is not as a board needs it, each with what to do; off a board that comes first."""
    told = []
    board, versions, pynq, system = found["board"], found["versions"], found["pynq"], found["system"]
    if not board["is_board"]:
        told.append("this is no board: the kernel has no /sys/class/fpga_manager; run it on the board itself")
    elif versions["pynq"] is None:
        told.append("this Python has no pynq: source /etc/profile.d/pynq_venv.sh first, or flash an image with PYNQ")
    elif not system["is_root"]:
        told.append("only root may load a bitstream: sudo -s")
    elif "XILINX_XRT" not in system["environment"]:
        told.append("XILINX_XRT is not set: source /etc/profile.d/pynq_venv.sh and /etc/profile.d/xrt_setup.sh")
    if versions["pynq"] and "error" in pynq and board["is_board"]:
        told.append(f"PYNQ does not work here ({pynq['error']}); perhaps {PYNQ_PINS}")
    if board["is_board"] and not found["overlays"]:
        told.append("no overlay is in edgemoe of any user's home: make flash BOARD=... HOST=...")
    for overlay in found["overlays"]:
        if overlay["changed_file"] is not None:
            told.append(f"{overlay['changed_file']} is missing or not the file that was built: make flash again")
        if overlay["isa_version"] != overlay["runtime_isa_version"]:
            told.append(
                f"{overlay['bitstream']} is of ISA {overlay['isa_version']}, this runtime of "
                f"{overlay['runtime_isa_version']}: make bitstream and make flash again"
            )
    selftest = found["selftest"]
    if "code" in selftest and selftest["code"] != 0:
        last = next((line for line in reversed(selftest["output"]) if line.strip()), "no output")
        how = "did not end" if selftest["code"] is None else f"failed ({selftest['code']})"
        told.append(f"the self-test {how}: {last}")
    return told


def summary(found: dict[str, Any], out: Path) -> list[str]:
    """What ``examine`` found, as lines for a person."""
    board, selftest, versions = found["board"], found["selftest"], found["versions"]
    where = board["model"] or "a board without a name" if board["is_board"] else "no board"
    lines = [
        f"edgemoe {versions['edgemoe']}, Python {versions['python']}, numpy {versions['numpy'] or 'missing'}, "
        f"pynq {versions['pynq'] or 'missing'}, {found['system']['kernel']} {found['system']['machine']}",
        f"{where}; overlays: {', '.join(Path(each['bitstream']).name for each in found['overlays']) or 'none'}",
    ]
    if "not_run" in selftest:
        lines.append(f"self-test not run: {selftest['not_run']}")
    else:
        device = selftest["arguments"][1]
        verdict = "passed" if selftest["code"] == 0 else "FAILED"
        lines.append(f"self-test on {device}: {verdict} in {selftest['seconds']:g} s")
    lines += [f"- {problem}" for problem in found["problems"]]
    return [*lines, f"{out}: attach it to your issue; it names neither you nor this machine"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code is 0 unless the file could not be written."""
    parser = argparse.ArgumentParser(prog="doctor.sh", description="Collect what helps to help, in one file.")
    parser.add_argument("--out", type=Path, default=OUT, help="the file")
    parser.add_argument("--bundle", type=Path, help="bundle of the self-test (.emoe)")
    parser.add_argument("--bitstream", type=Path, help="bitstream to load (pynq)")
    parser.add_argument("--no-selftest", action="store_true", help="load and run nothing")
    chosen = parser.parse_args(arguments)
    try:
        found = examine(chosen.out, chosen.bundle, chosen.bitstream, not chosen.no_selftest)
    except OSError as error:
        sys.stderr.write(f"edgemoe: {error}\n")
        return 1
    for line in summary(found, chosen.out):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
