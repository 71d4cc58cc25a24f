"""Run by ``make dist`` in the environment of the server: starts it, opens it as a device, compares, ends it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import edgemoe

LIMIT = 120  # seconds
BUNDLE = "m3vit-micro-w8a8-pynq-z2"
command = [str(Path(sys.executable).with_name("edgemoe")), "serve", BUNDLE, "--port", "0"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    try:
        assert server.stdout is not None
        match = re.search(r"http://[^/]+", server.stdout.readline())
        assert match is not None
        with edgemoe.open("remote", url=match[0]) as remote, edgemoe.open("reference", BUNDLE) as reference:
            picture = np.zeros((remote.bundle.model.image_height, remote.bundle.model.image_width, 3), np.uint8)
            for task in remote.tasks:
                assert np.array_equal(remote.run(picture, task).raw, reference.run(picture, task).raw), task
    finally:
        server.terminate()
    assert server.wait(LIMIT) == 0
print("equal")
