"""Connections to edgemoe's web servers: how many, and for how long they may say nothing."""

import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from edgemoe.web import connections
from edgemoe.web.connections import BoundedProtocol
from support.serving import SECONDS, ask, get, serving

HEAD = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n"
REFUSED = b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


def open_line(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), SECONDS)


def is_answered(line):
    """Whether there is an answer, all of it."""
    said = b""
    while not said.endswith(b"}"):
        said += line.recv(65536)
    return said.startswith(b"HTTP/1.1 200")


def is_ended(line):
    """Whether the server closes this connection; what it says before does not matter."""
    with contextlib.suppress(ConnectionResetError):
        while line.recv(65536):
            pass
    return True


@pytest.mark.parametrize("beginning", [b"", HEAD, HEAD + b"\r\n" + HEAD, REFUSED])
def test_whoever_says_nothing_is_sent_away(runtime_bundle, monkeypatch, beginning):
    """Before a request, in the middle of its head, or of the next one's, or of a body that nobody reads; bytes that
    drip in change nothing."""
    monkeypatch.setattr(BoundedProtocol, "patience", 0.5)
    with serving(runtime_bundle) as url, open_line(url) as line:
        line.sendall(beginning)
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begin < SECONDS / 2:
                time.sleep(0.1)
                if beginning:
                    line.sendall(b"x")
                elif is_ended(line):
                    break
        assert time.monotonic() - begin < SECONDS / 2
        assert get(url, "/v2/health/live")[0] == 200


def test_a_kept_connection_may_rest(runtime_bundle, monkeypatch):
    """Between two requests a balancer's connection waits as long as the server keeps it."""
    monkeypatch.setattr(BoundedProtocol, "patience", 0.2)
    with serving(runtime_bundle) as url, open_line(url) as line:
        for _ in range(2):
            line.sendall(HEAD + b"\r\n")
            assert is_answered(line)
            time.sleep(0.5)


def test_connections_are_few(runtime_bundle, monkeypatch):
    """Where there are too many, the one that has said nothing for longest goes, and whoever asks is answered."""
    monkeypatch.setattr(connections, "most_connections", lambda: 3)
    with serving(runtime_bundle) as url, contextlib.ExitStack() as stack:
        lines = []
        for _ in range(5):
            lines.append(stack.enter_context(open_line(url)))
            lines[-1].sendall(HEAD)
            assert get(url, "/v2/health/live")[0] == 200
        assert all(is_ended(line) for line in lines[:3])
        for line in lines[3:]:
            line.sendall(b"\r\n")
            assert is_answered(line)


def test_a_flood_leaves_no_traceback_and_goes_by(runtime_bundle, tmp_path):
    """More connections than the process has file descriptors for, and requests that are none."""
    runtime_bundle.save(tmp_path / "x.emoe")
    descriptors = 128
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemoe.cli", "serve", str(tmp_path / "x.emoe"), "--port", "0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
    )
    try:
        url = re.search(r"http://[^/]+", process.stdout.readline())[0]
        with contextlib.ExitStack() as stack:
            for _ in range(2 * descriptors):
                line = stack.enter_context(socket.socket())
                line.setblocking(False)
                line.connect_ex((urlsplit(url).hostname, urlsplit(url).port))
            time.sleep(1.5)
            assert ask(url, "GET", "/v2/health/live")[0] == 200
        with open_line(url) as line:
            line.sendall(b"\0\r\n\r\n")
            assert line.recv(65536).startswith(b"HTTP/1.1 400")
        assert ask(url, "GET", "/v2/health/live")[0] == 200
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and errors == ""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("length", [3_000_000, 100_000_000])
def test_too_large_a_body_is_told_so(runtime_bundle, length):
    """A few bytes too many are read, by clients too that look at an answer only when they have sent everything; nobody
    waits for many."""
    lines = (
        "POST /v2/models/small/infer HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {length}",
    )
    with serving(runtime_bundle) as url, open_line(url) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        if length < 10_000_000:
            line.sendall(bytes(length))
        said = b"".join(iter(lambda: line.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 400") and b"a request may have" in said
