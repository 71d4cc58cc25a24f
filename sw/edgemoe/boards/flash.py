"""Onto a board: bitstream, bundle and the runtime's sources over ssh, then the self-test there.

Nothing is installed on the board: a folder ``edgemoe/<stem>`` in the user's home has everything, and PYNQ's own Python
runs it. Loading a bitstream needs root, so the self-test runs under sudo, which may ask for the password.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from edgemoe.boards.bitstream import OUT, find_bitstream
from edgemoe.boards.board import Board, BoardError
from edgemoe.bundle import Bundle, BundleError
from edgemoe.manifest import read_manifest
from edgemoe_models.storage.atomic import new_folder, write_text

__all__ = ["check_host", "flash", "stage"]

_PACKAGES = ("edgemoe", "edgemoe_hw", "edgemoe_models")
# Weights, bundles but the chosen one, boards' data (of a wheel), the explorer's figures: they serve the computer, not
# the board.
_SKIPPED = ("__pycache__", "*.pyc", "*.safetensors", "bundles", "data", "coefficients.json")
_CONNECT = ("-o", "ConnectTimeout=10")
_SSH_FAILED = 255  # ssh's own exit code; others are the remote command's

# Names of PYNQ's profile scripts; root's login shell on its images sources the same.
_SCRIPT = """#!/bin/bash
# @COMMENT@, and by hand: sudo bash edgemoe/@STEM@/@NAME@.sh
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
for profile in pynq_venv xrt_setup; do
    [ -r /etc/profile.d/$profile.sh ] && . /etc/profile.d/$profile.sh
done
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "edgemoe: this board has $(python3 --version); 3.10 is needed, which PYNQ has from its image 3.0 on" >&2
    exit 1; }
reason=$(python3 -c 'import numpy' 2>&1) || {
    echo "edgemoe: this board's Python cannot use numpy (${reason##*$'\n'}): sudo python3 -m pip install numpy" >&2
    exit 1; }
@CHECKS@# No caches of root's in the user's folder: the next `edgemoe boards flash` could not delete them.
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=lib
exec @COMMAND@ --bundle bundle.emoe --bitstream @STEM@.bit "$@"
"""
_PYNQ_CHECK = """python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("pynq") is None)' || {
    echo "edgemoe: this board's Python has no pynq: sudo python3 -m pip install pynq" >&2; exit 1; }
"""
# By name of a script: what it says of itself, what it checks beside NumPy, what it starts.
_SCRIPTS = {
    "selftest": (
        "Started as root by `edgemoe boards flash`",
        _PYNQ_CHECK,
        "python3 -m edgemoe.runtime.selftest --device pynq",
    ),
    "doctor": (
        "Collects what to send when something fails, also where there is no PYNQ",
        "",
        "python3 -m edgemoe.runtime.doctor",
    ),
}


def flash(
    board: Board, host: str, bundle: Path, out: Path = OUT, on_step: Callable[[str], None] = lambda step: None
) -> None:
    """Copy everything to ``host`` (``user@name``), load the bitstream there and run the self-test.

    Raises:
        BoardError: there is no fitting bitstream, no ssh, the host cannot be reached, or the self-test failed there
        BundleError: the bundle is unusable, or of another configuration than the board
    """
    check_host(host)
    folder = stage(board, find_bitstream(board, out), bundle, out)
    ssh = shutil.which("ssh")
    if ssh is None:
        raise BoardError("ssh is missing: install an OpenSSH client (Debian: sudo apt-get install openssh-client)")
    on_step(f"copying {folder.name} to {host}")
    _copy(ssh, host, folder)
    on_step(f"loading the bitstream on {host}, self-test")
    code = subprocess.run(
        [ssh, *_CONNECT, "-t", host, f"sudo bash edgemoe/{folder.name}/selftest.sh"], check=False
    ).returncode
    if code == _SSH_FAILED:
        raise BoardError(f"the connection to {host} was lost")
    if code:
        raise BoardError(
            f"the self-test failed on {host} ({code}); its messages are above. What to send with an issue is collected "
            f"there by: sudo bash edgemoe/{folder.name}/doctor.sh"
        )


def check_host(host: str) -> None:
    """Raise BoardError if ``host`` is none, or would be an option of ssh's."""
    if not host or host.startswith("-") or any(character.isspace() for character in host):
        raise BoardError(
            f"host must be the board's name or user@name (make flash … HOST=xilinx@192.168.2.99), not {host!r}"
        )


def stage(board: Board, manifest: Path, bundle: Path, out: Path) -> Path:
    """The folder that goes onto the board: ``<out>/flash/<stem>``.

    Raises:
        BundleError: the bundle is unusable, or of another configuration than the board
    """
    found = Bundle.load(bundle).config.content_hash
    if found != board.config.content_hash:
        raise BundleError(
            f"{bundle} is for configuration {found[:16]}, and {board.name} has "
            f"{board.config.content_hash[:16]}: compile it with --config {board.name}"
        )
    folder = out / "flash" / manifest.stem
    with new_folder(folder) as partial:
        for name in [manifest.name, *read_manifest(manifest).files]:
            shutil.copyfile(manifest.parent / name, partial / name)
        shutil.copyfile(bundle, partial / "bundle.emoe")
        for package in _PACKAGES:
            source = str(resources.files(package))
            shutil.copytree(source, partial / "lib" / package, ignore=shutil.ignore_patterns(*_SKIPPED))
        for name in _SCRIPTS:
            write_text(partial / f"{name}.sh", _script(name, manifest.stem))
    return folder


def _script(name: str, stem: str) -> str:
    comment, checks, command = _SCRIPTS[name]
    words = {"COMMENT": comment, "CHECKS": checks, "COMMAND": command, "NAME": name, "STEM": stem}
    text = _SCRIPT
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _copy(ssh: str, host: str, folder: Path) -> None:
    """Send a folder as an archive: one connection, and nothing of an older copy stays."""
    archive = folder.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=folder.name)
    receive = f"mkdir -p edgemoe && rm -rf edgemoe/{folder.name} && tar -x -f - -C edgemoe"
    with archive.open("rb") as stream:
        result = subprocess.run(
            [ssh, *_CONNECT, host, receive], stdin=stream, stderr=subprocess.PIPE, text=True, check=False
        )
    archive.unlink()
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        what = "cannot be reached" if result.returncode == _SSH_FAILED else "did not take the files"
        raise BoardError(f"{host} {what}: {reason}")
