"""A board's bitstream: checks that need no Vivado, then Vivado, then files under one content-hashed name.

PYNQ caches a bitstream's metadata under its file name, so another bitstream must have another name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemoe.boards.board import BOARDS, Board, BoardError
from edgemoe.boards.build_inputs import parameters_tcl, rtl_text
from edgemoe.boards.utilisation import check_fits, utilisation, what_fits
from edgemoe.manifest import ManifestError, read_manifest
from edgemoe_hw.spec.config import ISA_VERSION
from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_bytes, write_text
from edgemoe_models.storage.cache import results_root
from edgemoe_models.storage.json_text import read_json

__all__ = ["build_bitstream", "find_bitstream", "publish"]

BUILD_TCL = BOARDS / "build.tcl"
OUT = results_root() / "boards"
_RESULTS = ("bit", "hwh")  # what Vivado leaves in the work folder as edgemoe.<suffix>
_HASH_DIGITS = 12  # of the content, in the files' names
# In placement's check ("requires more RAMB36/FIFO cells than are available"), DRC's and synthesis' ("device capacity").
_SHORT_OF_RAM = re.compile(r"ERROR: .*\b(RAMB(18|36)|URAM).*\b(available|over-utilized|capacity)\b")
_REPORT = "result.json"  # beside them: version, board files, clock, slack, utilisation


def build_bitstream(board: Board, out: Path = OUT, on_step: Callable[[str], None] = lambda step: None) -> Path:
    """Build the bitstream of a board; returns its manifest, beside which ``.bit`` and ``.hwh`` lie.

    Raises:
        BoardError: Vivado is missing or failed, timing is not met, or the configuration does not fit the device
        SynthesisError: Yosys is missing or failed
    """
    vivado = find_vivado(board)
    on_step("Yosys: does it fit?")
    check_fits(board, utilisation(board, on_step=lambda step: on_step(f"Yosys: {step}")))
    on_step("RTL")
    work = (out / board.name).resolve()
    work.mkdir(parents=True, exist_ok=True)
    rtl, parameters, log = work / "edgemoe.v", work / "parameters.tcl", work / "vivado.log"
    write_text(rtl, rtl_text(board.config))
    write_text(parameters, parameters_tcl(board, rtl, work))
    on_step(f"Vivado (an hour or so): {log}")
    for name in [*(f"edgemoe.{suffix}" for suffix in _RESULTS), _REPORT]:
        (work / name).unlink(missing_ok=True)
    run_vivado(
        board,
        [
            vivado,
            "-mode",
            "batch",
            "-notrace",
            "-nojournal",
            "-log",
            str(log),
            "-source",
            str(BUILD_TCL),
            "-tclargs",
            str(parameters),
        ],
        work,
    )
    return publish(board, work, out)


def find_vivado(board: Board) -> str:
    """Path of Vivado.

    Raises:
        BoardError: it is not on PATH; the message says which versions there are
    """
    path = shutil.which("vivado")
    if path is None:
        raise BoardError(
            f"a bitstream for {board.name} needs AMD Vivado 2022.1 or newer, and 'vivado' is not on PATH: install it "
            f"with device support for {board.part} and source its settings64.sh. PYNQ 3.0 "
            f"was built with 2022.1, 3.1 with 2024.1, 4.0 with 2025.2. No Vivado is needed for "
            f"'make hwh BOARD={board.name}' and simulation"
        )
    return path


def run_vivado(board: Board, command: list[str], work: Path) -> None:
    """Run Vivado, its output in ``vivado.out``.

    Raises:
        BoardError: it failed; the message has the first error that it wrote, and build.tcl's if that is another; where
            memories are too large for the FPGA, what is smaller too
    """
    output = work / "vivado.out"
    with output.open("w", encoding="utf-8") as stream:
        code = subprocess.run(command, cwd=work, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
        advice = f"; {what_fits(board)}" if any(map(_SHORT_OF_RAM.match, lines)) else ""
        raise BoardError(f"Vivado failed ({code}): {_reason(lines)}{advice}. Its output: {output}")


def _reason(lines: list[str]) -> str:
    """First message of Vivado, and that of build.tcl; of neither, what Tcl says.

    They count at a line's beginning only, because Vivado also quotes the script, which has the texts of all messages.
    """
    begins = ("ERROR: ", "edgemoe: ")
    found = [next((line.removeprefix(begin) for line in lines if line.startswith(begin)), "") for begin in begins]
    if not any(found):
        found = [before for before, line in itertools.pairwise(lines) if line.startswith("    while executing")][:1]
    return "; ".join(line.strip() for line in found if line) or "no message"


def publish(board: Board, work: Path, out: Path) -> Path:
    """Copy the results in ``work`` to ``out`` as ``<board>-<hash>.{bit,hwh,json}``; returns the manifest (JSON).

    Raises:
        BoardError: a result is missing
    """
    found = {suffix: work / f"edgemoe.{suffix}" for suffix in _RESULTS}
    missing = [path.name for path in [*found.values(), work / _REPORT] if not path.exists()]
    if missing:
        raise BoardError(f"Vivado ended without {', '.join(missing)} in {work}")
    content = hashlib.sha256(b"".join(path.read_bytes() for path in found.values())).hexdigest()
    stem = f"{board.name}-{content[:_HASH_DIGITS]}"
    files = {}
    for suffix, path in found.items():
        result = path.read_bytes()
        write_bytes(out / f"{stem}.{suffix}", result)
        files[f"{stem}.{suffix}"] = hashlib.sha256(result).hexdigest()
    manifest = out / f"{stem}.json"  # last: where it is, its files are whole
    write_text(manifest, json.dumps(_manifest(board, work, files), indent=1) + "\n")
    return manifest


def _manifest(board: Board, work: Path, files: dict[str, str]) -> dict[str, Any]:
    return {
        "board": board.name,
        "part": board.part,
        "clock_mhz": board.clock_mhz,
        "config": board.config.to_dict(),
        "config_hash": board.config.content_hash,
        "isa_version": ISA_VERSION,
        "sources": _sources_version(),
        **checks.record(read_json(work / _REPORT), _REPORT, (), others=True),
        "files": files,
    }


def _sources_version() -> str:
    """Commit of the sources, ``-dirty`` if they were changed since; ``unknown`` outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        return subprocess.run(command, cwd=BOARDS, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def find_bitstream(board: Board, out: Path = OUT) -> Path:
    """Manifest of the newest bitstream of the board, its files unchanged.

    Raises:
        BoardError: there is none, only one of another configuration or ISA version, or a file is missing or changed
    """
    build = f"make bitstream BOARD={board.name}"
    pattern = f"{board.name}-{'[0-9a-f]' * _HASH_DIGITS}.json"  # not those of the board's variants
    manifests = sorted(out.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise BoardError(f"there is no bitstream of {board.name} in {out}: {build}")
    path = manifests[-1]
    try:
        manifest = read_manifest(path)
    except ManifestError as error:
        raise BoardError(f"{error}: {build}") from None
    wanted = (board.config.content_hash, ISA_VERSION)
    found = (manifest.config_hash, manifest.isa_version)
    if found != wanted:
        raise BoardError(
            f"{path} is of configuration {found[0][:16]}, ISA {found[1]}, and {board.name} now has "
            f"{wanted[0][:16]}, ISA {wanted[1]}: {build}"
        )
    if (file := manifest.changed_file()) is not None:
        raise BoardError(f"{file} is missing or was changed since it was built: {build}")
    return path
