"""Root file systems of Debian for a board's processor, with Python and NumPy and nothing else, run by qemu."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgemoe_models.storage.cache import cache_root

__all__ = ["inside", "make_root", "missing"]

SUITE = "bookworm"
PACKAGES = "python3,python3-numpy"
#: What the kernel calls the emulator that it starts programs of an architecture with.
_EMULATORS = {"armhf": "qemu-arm", "arm64": "qemu-aarch64"}


def missing(arch: str) -> str:
    """What this machine lacks to make and run a root of ``arch``; empty if nothing."""
    if os.geteuid() != 0:
        return "only root can make a root file system and change into it"
    if shutil.which("debootstrap") is None:
        return "debootstrap is missing: apt-get install debootstrap"
    emulator = _EMULATORS[arch]
    if shutil.which(f"{emulator}-static") is None:
        return f"{emulator}-static is missing: apt-get install qemu-user-static"
    registered = Path("/proc/sys/fs/binfmt_misc") / emulator
    if not registered.exists() or "enabled" not in registered.read_text(encoding="ascii"):
        return (
            f"the kernel does not start programs of {arch}: mount binfmt_misc on /proc/sys/fs/binfmt_misc, and write "
            f"/usr/lib/binfmt.d/{emulator}.conf to its file register"
        )
    return ""


def make_root(arch: str) -> Path:
    """A root of ``arch``, kept in the cache; skips, with the reason, where there cannot be one."""
    if reason := missing(arch):
        pytest.skip(reason)
    folder = cache_root() / f"debian-{SUITE}-{arch}"
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", f"--arch={arch}", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(folder)]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"debootstrap cannot make a root of {arch} here: {(made.stdout + made.stderr).strip()[-300:]}")
        (folder / "made").touch()
    return folder


def inside(root: Path, folder: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the root's own, in one of its folders, with the copied sources."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": "lib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/root",
    }
    words = ["chroot", str(root), "/bin/sh", "-c", 'cd "$0" && exec "$@"', folder, *command]
    return subprocess.run(words, env=environment, capture_output=True, text=True)
