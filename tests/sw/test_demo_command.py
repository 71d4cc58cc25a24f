"""The live demo's command: serves until it is ended, refuses in one line."""

import os
import re
import signal
import subprocess
import sys

import pytest
from websockets.sync.client import connect

from edgemoe.demo.view import decode
from edgemoe.extras import install_command
from edgemoe.web.listening import listen

SECONDS = 20


@pytest.fixture
def bundle_file(runtime_bundle, tmp_path):
    runtime_bundle.save(tmp_path / "x.emoe")
    return tmp_path / "x.emoe"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_serves_until_it_is_ended(number, bundle_file):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemoe.cli", "demo", "--bundle", bundle_file, "--port", "0", "--task", "depth"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    line = process.stdout.readline()
    address = re.search(r"ws://\S+", line.replace("http", "ws"))[0]
    with connect(address + "live", max_queue=None) as viewer:  # else close waits for frames that nobody reads
        while not isinstance(message := viewer.recv(SECONDS), bytes):
            pass
        assert list(decode(message)[1]) == ["input", "depth"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0 and errors == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--source", "nothing.mp4"], "nothing.mp4: there is no such file or folder"),
        (["--device", "gpu"], "device must be one of reference, sim, pynq, "),
        (["--task", "x"], "this bundle has no task 'x'; it has segmentation, depth, normals, edges, scene"),
        (["--model", "m3vit-micro"], "--bundle and --model exclude each other: a bundle has its model"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1, port 0: Cannot assign requested address"),
        (["--port", "65536"], "port must be 0 to 65535, not 65536"),
    ],
)
def test_refusals_are_one_line(edgemoe, arguments, message, bundle_file):
    edgemoe("demo", "--port", 0, "--bundle", bundle_file, *arguments).refused(f"edgemoe: {message}")


def test_a_port_in_use(edgemoe):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        edgemoe("demo", "--port", port).refused(
            f"port {port} of 127.0.0.1 is in use; choose another with --port, or 0 for any free one"
        )


def test_without_the_extra(edgemoe, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    edgemoe("demo").refused(f"edgemoe: edgemoe demo needs a web server: {install_command('demo')}\n")
