"""What this machine is, as far as it decides whether an accelerator runs: versions, board, kernel, memory, overlays.

Only files are read and nothing is imported for it, so that it can be told where everything else fails. Nothing here
names a person or a machine: no host name, no address, no serial number, no environment but the variables that are
listed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemoe.manifest import Manifest
from edgemoe.runtime.platforms.overlays import manifests, overlay_folders
from edgemoe.runtime.platforms.power import hwmon_rails
from edgemoe.version import __version__
from edgemoe_hw.spec.config import ISA_VERSION

__all__ = ["board", "is_board", "overlays", "system", "versions", "versions_line", "without_names"]

#: What PYNQ needs, or what can keep it from being imported.
PACKAGES = (
    "numpy",
    "pynq",
    "pynqmetadata",
    "pynqutils",
    "pydantic",
    "setuptools",
    "pycparser",
    "pillow",
    "safetensors",
)
_VARIABLES = ("BOARD", "XILINX_XRT", "VIRTUAL_ENV")  # that PYNQ's profile scripts set
_BOOT = ("cma=", "clk_ignore_unused", "uio_pdrv_genirq", "mem=")  # words of the kernel's command line
_IMAGE_USERS = {"xilinx", "ubuntu", "petalinux"}  # that images come with, who are nobody
_HOME = re.compile(r"(?<![\w.-])(/home/|/Users/)([^/\s:'\"]+)")


def versions() -> dict[str, str | None]:
    """Of edgemoe, Python and the packages that matter; None: it is not installed."""
    found: dict[str, str | None] = {"edgemoe": __version__, "python": platform.python_version()}
    return found | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown" if importlib.util.find_spec(package) else None  # it is there, without a package's data


def versions_line() -> str:
    """One line for the beginning of an output that somebody sends."""
    found = versions()
    return (
        f"edgemoe {found['edgemoe']}, Python {found['python']}, numpy {found['numpy'] or 'missing'}, "
        f"pynq {found['pynq'] or 'missing'}, {platform.system()} {platform.release()} {platform.machine()}"
    )


def is_board(root: Path = Path("/")) -> bool:
    """Whether PYNQ would find a device here: the kernel can load an FPGA."""
    return (root / "sys/class/fpga_manager/fpga0/firmware").exists()


def board(root: Path = Path("/")) -> dict[str, Any]:
    """The board as its device tree and its image name it; None: it does not."""
    tree = root / "proc/device-tree"
    revisions = sorted((root / "home").glob("*/REVISION"))  # PYNQ's images have one
    return {
        "is_board": is_board(root),
        "model": _text(tree / "model"),
        "compatible": [name for name in (_text(tree / "compatible") or "").split("\0") if name],
        "pynq_board": _text(tree / "chosen/pynq_board"),
        "image": _text(revisions[0]) if revisions else None,
        "fpga_manager": _text(root / "sys/class/fpga_manager/fpga0/name"),
        "fpga_state": _text(root / "sys/class/fpga_manager/fpga0/state"),
        "uio": [_text(path) for path in sorted((root / "sys/class/uio").glob("*/name"))],
        "zocl": (root / "sys/module/zocl").exists(),
        "rails": sorted(hwmon_rails(root / "sys/class/hwmon")),
    }


def system(root: Path = Path("/")) -> dict[str, Any]:
    """Kernel, distribution, memory, and of the environment what PYNQ's profile scripts set."""
    release = dict(re.findall(r'^(\w+)="?(.*?)"?$', _text(root / "etc/os-release") or "", re.MULTILINE))
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo") or "", re.MULTILINE))
    boot = (_text(root / "proc/cmdline") or "").split()
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "distribution": release.get("PRETTY_NAME"),
        "is_root": hasattr(os, "geteuid") and os.geteuid() == 0,
        "memory_mib": {
            name: int(memory[key]) // 1024
            for name, key in (("total", "MemTotal"), ("cma", "CmaTotal"), ("cma_free", "CmaFree"))
            if key in memory
        },
        "boot": [word for word in boot if word.startswith(_BOOT)],
        "environment": {name: without_names(os.environ[name]) for name in _VARIABLES if name in os.environ},
    }


def overlays(folders: list[Path] | None = None) -> list[dict[str, Any]]:
    """The overlays of all users, or those in ``folders``; the newest last."""
    found = sorted(
        manifests(overlay_folders() if folders is None else folders), key=lambda each: each.path.stat().st_mtime
    )
    return [_overlay(manifest) for manifest in found]


def _overlay(manifest: Manifest) -> dict[str, Any]:
    changed = manifest.changed_file()
    return {
        "bitstream": str(manifest.path.with_suffix(".bit")),
        "config": manifest.config_name,
        "config_hash": manifest.config_hash[:16],
        "isa_version": manifest.isa_version,
        "runtime_isa_version": ISA_VERSION,
        "clock_mhz": manifest.clock_mhz,
        "slack_ns": manifest.slack_ns,
        "changed_file": None if changed is None else changed.name,
    }


def without_names(text: str) -> str:
    """A text without the names of people in paths, and without this machine's."""
    text = _HOME.sub(lambda found: found[1] + (found[2] if found[2] in _IMAGE_USERS else "USER"), text)
    home = os.path.expanduser("~")
    if len(Path(home).parts) > 2 and not _HOME.match(f"{home}/"):  # homes may lie anywhere; root's is nobody's
        text = text.replace(home, "~")
    host = platform.node()
    return re.sub(rf"\b{re.escape(host)}\b", "HOST", text) if len(host) > 1 and host not in _COMMON else text


#: Host names that images come with, and words that a text must not lose.
_COMMON = _IMAGE_USERS | {"pynq", "kria", "localhost", "edgemoe"}


def _text(path: Path) -> str | None:
    """A small file's text without what ends it; None: there is none, or it is not ours to read."""
    try:
        return path.read_bytes()[: 1 << 16].decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return None
