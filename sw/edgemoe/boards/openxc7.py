"""A bitstream for a Zynq-7000 board without its vendor's tools: Yosys, nextpnr and Project X-Ray, as openXC7 has them.

The design is ``edgemoe_hw.targets.zynq7.Zynq7System``: the processing system as a primitive, no vendor's IP. Only
Yosys is on a package registry; the others are looked for where openXC7 puts them. Its clock is what nextpnr says that
the placed and routed design reaches, rounded down to one that the board's PLL gives.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe.boards.bitstream import OUT, publish
from edgemoe.boards.board import Board, BoardError
from edgemoe.boards.hwh import hwh_text
from edgemoe.boards.synth import count_resources, run_yosys, yosys_tool
from edgemoe.boards.utilisation import check_used
from edgemoe.extras import needs
from edgemoe_models.storage.atomic import write_bytes, write_text

__all__ = ["STAGES", "OpenTools", "bit_payload", "build_open_bitstream", "find_tools", "reached_mhz", "slower_clock"]

#: What can be asked for; each does those before it.
STAGES = ("synthesis", "route", "bitstream")
_TOP = "edgemoe"
_FAMILY = "zynq7"  # Project X-Ray's name
_MARGIN = 0.95  # of nextpnr's clock: its delays of this family are not a sign-off
_FREQUENCY = re.compile(r"Max frequency for clock\s+'([^']*)':\s*(\d+(?:\.\d+)?) MHz")
_HOME = "install openXC7 (github.com/openXC7, toolchain-installer or toolchain-nix)"


@dataclass(frozen=True)
class OpenTools:
    """Where the tools are.

    Attributes:
        placer: nextpnr-xilinx, or upstream's nextpnr-himbaechel with the xilinx architecture
        chip: nextpnr-xilinx's file of the device; None for the other, which finds its own
        assembler, packer: fasm2frames, xc7frames2bit
        database: Project X-Ray's folder of the family
    """

    placer: str
    chip: Path | None
    assembler: str
    packer: str
    database: Path


def find_tools(board: Board) -> OpenTools:
    """The tools on PATH, and what $CHIPDB and $PRJXRAY_DB_DIR name.

    Raises:
        BoardError: the board has no Zynq-7000, or something is missing; the message has all of it
    """
    check_family(board)
    found = {name: _which(name) for name in ("nextpnr-xilinx", "nextpnr-himbaechel")}
    placer = found["nextpnr-xilinx"] or found["nextpnr-himbaechel"]
    missing = [] if placer else ["nextpnr-xilinx (or nextpnr-himbaechel with the architecture xilinx) on PATH"]
    chip = None
    if found["nextpnr-xilinx"] or not placer:  # the one of openXC7
        device = board.part.rpartition("-")[0]
        folder = Path(os.environ.get("CHIPDB", ".")).absolute()  # tools run in another folder
        chip = folder / f"{device}.bin"
        if not chip.is_file():
            missing.append(
                f"{chip}, the device for nextpnr-xilinx, in the folder that CHIPDB names (made once: python3 "
                f"$NEXTPNR_XILINX_PYTHON_DIR/bbaexport.py --device {board.part} --bba {device}.bba && "
                f"bbasm -l {device}.bba {device}.bin)"
            )
    tools = {name: _which(name) for name in ("fasm2frames", "xc7frames2bit")}
    missing += [f"{name} on PATH" for name, path in tools.items() if path is None]
    database = Path(os.environ.get("PRJXRAY_DB_DIR", "prjxray-db")).absolute() / _FAMILY
    if not (database / board.part / "part.yaml").is_file():
        missing.append(
            f"{database / board.part}/part.yaml of Project X-Ray's database, whose folder PRJXRAY_DB_DIR names"
        )
    if missing or placer is None:
        raise BoardError(
            f"an open bitstream for {board.name} needs {'; '.join(missing)}: {_HOME}. "
            f"'--until synthesis' needs nothing but Yosys"
        )
    return OpenTools(placer, chip, str(tools["fasm2frames"]), str(tools["xc7frames2bit"]), database)


def _which(name: str) -> str | None:
    """A tool's path from anywhere: entries of PATH may be relative."""
    found = shutil.which(name)
    return None if found is None else os.path.abspath(found)


def check_family(board: Board) -> None:
    """BoardError for a board whose FPGA no open tool places."""
    if not board.family.seven:
        raise BoardError(
            f"the flow openxc7 is for Zynq-7000 boards, and {board.name} has an {board.device.name}: "
            f"no open tool places that; use Vivado"
        )


def build_open_bitstream(
    board: Board,
    out: Path = OUT,
    *,
    until: str = "bitstream",
    seed: int = 1,
    on_step: Callable[[str], None] = lambda step: None,
) -> Path:
    """Build as far as ``until``; returns the manifest, or the folder with what was made.

    Args:
        until: one of ``STAGES``
        seed: of the placer

    Raises:
        BoardError: a tool is missing or failed, or the design does not fit
        SynthesisError: Yosys is missing or failed
    """
    check_family(board)
    tools = None if until == "synthesis" else find_tools(board)
    work = (out / f"{board.name}-openxc7").resolve()
    work.mkdir(parents=True, exist_ok=True)
    result = synthesize_system(board, work, on_step)
    if tools is not None:
        on_step(f"place and route (an hour or so): {work / 'nextpnr.log'}")
        result |= _route(board, tools, work, seed)
    write_text(work / "result.json", json.dumps(result, indent=1) + "\n")
    if tools is None or until == "route":
        return work
    on_step("bitstream")
    _pack(board, tools, work)
    timed = dataclasses.replace(board, clock_mhz=result["clock_mhz"])
    write_text(work / "edgemoe.hwh", hwh_text(timed, interrupts=False))
    manifest = publish(timed, work, out)
    raw = bit_payload((work / "edgemoe.bit").read_bytes())
    write_bytes(manifest.with_suffix(".bin"), raw)
    return manifest


def synthesize_system(board: Board, work: Path, on_step: Callable[[str], None]) -> dict[str, Any]:
    """Netlist of the whole system as ``<top>.json`` for nextpnr; returns resources."""
    try:
        from amaranth.back import rtlil

        from edgemoe_hw.targets.zynq7 import Zynq7System
    except ImportError as error:
        raise BoardError(f"{needs('synthesis', 'sim', 'synth')} ({error})") from None
    on_step("RTLIL")
    write_text(work / f"{_TOP}.rtlil", rtlil.convert(Zynq7System(board.config), name=_TOP, ports=[]))
    cells, _ = run_yosys(
        work, _TOP, board.device.family, lambda step: on_step(f"Yosys: {step}"), f"write_json {_TOP}.json"
    )
    used = count_resources(cells)
    check_used(board, used)
    if cells.get("PS7") != 1:
        raise BoardError(f"the netlist has {cells.get('PS7', 0)} processing systems, not 1")
    return {"flow": "openxc7", "tool": yosys_tool(), "part": board.part, "used": used}


def _route(board: Board, tools: OpenTools, work: Path, seed: int) -> dict[str, Any]:
    """Place and route to ``<top>.fasm``; returns the clock that is reached and the one to run at."""
    write_text(work / f"{_TOP}.xdc", "# No pin of the fabric is used: the processing system's are wired on the die.\n")
    common = ["--json", f"{_TOP}.json", "--freq", f"{board.clock_mhz:g}", "--seed", str(seed), "--timing-allow-fail"]
    if tools.chip is not None:
        own = ["--chipdb", str(tools.chip), "--xdc", f"{_TOP}.xdc", "--fasm", f"{_TOP}.fasm"]
    else:
        own = ["--device", board.part, "-o", f"xdc={_TOP}.xdc", "-o", f"fasm={_TOP}.fasm"]
    log = _run([tools.placer, *common, *own], work, "nextpnr", f"{_TOP}.fasm")
    try:
        reached = reached_mhz(log)
    except BoardError as error:
        raise BoardError(f"{error} It is in {work / 'nextpnr.log'}") from None
    clock = slower_clock(board, _MARGIN * reached)
    return {
        "placer": Path(tools.placer).name,
        "seed": seed,
        "asked_mhz": board.clock_mhz,
        "reached_mhz": reached,
        "clock_mhz": clock,
        "wns_ns": round(1000 / clock - 1000 / reached, 3),
    }


def _pack(board: Board, tools: OpenTools, work: Path) -> None:
    """From FASM to ``edgemoe.bit``."""
    frames = f"{_TOP}.frames"
    _run(
        [tools.assembler, "--part", board.part, "--db-root", str(tools.database), f"{_TOP}.fasm", frames],
        work,
        "fasm2frames",
        frames,
    )
    part_file = tools.database / board.part / "part.yaml"
    _run(
        [
            tools.packer,
            *("--part_file", str(part_file), "--part_name", board.part),
            *("--frm_file", frames, "--output_file", "edgemoe.bit"),
        ],
        work,
        "xc7frames2bit",
        "edgemoe.bit",
    )
    try:
        bit_payload((work / "edgemoe.bit").read_bytes())
    except BoardError as error:
        raise BoardError(f"xc7frames2bit wrote {work / 'edgemoe.bit'}, but {error}") from None


def _run(command: Sequence[str], work: Path, name: str, makes: str) -> str:
    """Run a tool in ``work``, its output in ``<name>.log``; returns that.

    The file that it ``makes`` is removed before: another run's must not be taken for this one's.

    Raises:
        BoardError: it cannot be started, failed, or made nothing; the message has its first error
    """
    log, made = work / f"{name}.log", work / makes
    made.unlink(missing_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        try:
            done = subprocess.run(
                command, cwd=work, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, check=False
            )
        except OSError as error:
            raise BoardError(f"{name} cannot be started: {command[0]}: {error.strerror}. {_HOME}") from None
    code = done.returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    if code:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reason = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no message")
        raise BoardError(f"{name} failed ({code}): {reason}. Its output: {log}")
    if not made.is_file() or not made.stat().st_size:
        raise BoardError(f"{name} ended well, but wrote no {makes}. Its output: {log}")
    return text


def reached_mhz(log: str) -> float:
    """MHz of the slowest clock after routing, in nextpnr's output: its last estimate of each replaces those before.

    Raises:
        BoardError: there is none
    """
    found = {name: float(value) for name, value in _FREQUENCY.findall(log)}
    if not found or not min(found.values()):
        raise BoardError("nextpnr's output has no clock: is the design empty?")
    return min(found.values())


def slower_clock(board: Board, limit_mhz: float) -> float:
    """The fastest clock of the board's PLL, at most the board's own and ``limit_mhz``.

    Raises:
        BoardError: not even the slowest is slow enough
    """
    for divisor in range(1, 63 * 63 + 1):
        fits = any(divisor % first == 0 and divisor // first <= 63 for first in range(1, 64))
        clock = board.pll_mhz / divisor
        if fits and clock <= min(limit_mhz, board.clock_mhz) * (1 + 1e-4):
            return math.floor(clock * 100) / 100
    raise BoardError(f"the PLL of {board.name} has no clock below {limit_mhz:g} MHz")


def bit_payload(content: bytes) -> bytes:
    """What the FPGA manager of PYNQ's kernel takes (``.bin``): a ``.bit`` without its header, each word turned round.

    The header has a field of 9 bytes and a 1, then fields a to d (two bytes of length, text) and e (four bytes of
    length, the configuration words, highest byte first).

    Raises:
        BoardError: it is no such file, or it is cut short
    """
    position, fields = 2 + int.from_bytes(content[:2], "big") + 2, {}
    while position < len(content):
        key = content[position : position + 1]
        size = 4 if key == b"e" else 2
        length = int.from_bytes(content[position + 1 : position + 1 + size], "big")
        begin = position + 1 + size
        fields[key] = content[begin : begin + length]
        if key not in (b"a", b"b", b"c", b"d", b"e") or len(fields[key]) != length:
            break
        position = begin + length
    words = fields.get(b"e", b"")
    if not words or len(words) % 4 or position != len(content) or b"\xaa\x99\x55\x66" not in words[:512]:
        raise BoardError(
            f"this is no bitstream ({len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()[:12]})"
        )
    return b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
