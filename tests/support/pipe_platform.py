"""The simulated accelerator at the end of a pipe, for a C driver that runs elsewhere: ``run_by_pipe.c``."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.runtime.platforms.sim import SimBuffer, SimPlatform
from support.c_runtime import build_with_library

__all__ = ["build_client", "run_client"]

_REQUEST = struct.Struct("<IIQQd")  # struct request


def build_client(cross: str = "") -> Path:
    """The program of ``run_by_pipe.c``, linked with the runtime."""
    return build_with_library(Path(__file__).with_name("run_by_pipe.c"), "run-by-pipe", cross)


def run_client(command: Sequence[str | Path], bundle: Bundle) -> str:
    """Run the program against the simulated accelerator of the bundle's configuration; returns what it prints."""
    (from_read, from_write), (to_read, to_write) = os.pipe(), os.pipe()

    def connect() -> None:  # in the child
        answers, requests = os.dup(from_read), os.dup(to_write)
        os.dup2(answers, 3)
        os.dup2(requests, 4)

    words = [str(word) for word in command]
    platform = SimPlatform(bundle.config, quiet=True)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, close_fds=False, preexec_fn=connect
    ) as client:
        os.close(from_read)
        os.close(to_write)
        with os.fdopen(to_read, "rb") as requests, os.fdopen(from_write, "wb", buffering=0) as answers:
            buffers: dict[int, SimBuffer] = {}
            while len(head := requests.read(_REQUEST.size)) == _REQUEST.size:
                code, offset, address, size, seconds = _REQUEST.unpack(head)
                payload = requests.read(size) if chr(code) == "F" else b""
                answers.write(_answer(platform, buffers, chr(code), offset, address, size, seconds, payload))
        output, errors = client.communicate()
    platform.close()
    assert client.returncode == 0, errors
    return output


def _answer(
    platform: SimPlatform,
    buffers: dict[int, SimBuffer],
    what: str,
    offset: int,
    address: int,
    size: int,
    seconds: float,
    payload: bytes,
) -> bytes:
    if what == "R":
        return struct.pack("<I", platform.read(offset))
    if what == "A":
        buffer = platform.allocate(size)
        buffers[buffer.physical_address] = buffer
        return struct.pack("<Q", buffer.physical_address)
    if what == "I":
        buffers[address].invalidate()
        return buffers[address].array.tobytes()
    if what == "N":
        return struct.pack("<d", platform.now())
    if what == "W":
        platform.write(offset, address)
    elif what == "F":
        buffers[address].array[:] = np.frombuffer(payload, np.uint8)
        buffers[address].flush()
    else:
        platform.wait(seconds)
    return struct.pack("<I", 0)
