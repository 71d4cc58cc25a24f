"""edgemoe serve under load: a full queue, time-outs, what runs together, what fails, and its end."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest

from edgemoe import DeviceError
from edgemoe.bundle import Joined
from edgemoe.serve.engine import Engine
from support.serving import SECONDS, Limits, ask, gated, get, infer, json_request

MODEL = "small"


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def metric(url, name):
    text = ask(url, "GET", "/metrics")[2].decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def depth_of(picture, **more):
    return json_request(picture[None], outputs=[{"name": "depth.raw"}], **more)


def test_a_full_queue(runtime_bundle, pictures, expected):
    """One runs, two wait, the next one is told to come again; the others get what is theirs."""
    with gated(runtime_bundle, limits=Limits(queue=2)) as (device, url), ThreadPoolExecutor() as pool:
        running = pool.submit(infer, url, MODEL, depth_of(pictures[0]))
        assert device.began.acquire(timeout=SECONDS)
        waiting = [pool.submit(infer, url, MODEL, depth_of(picture)) for picture in pictures[1:3]]
        until(lambda: metric(url, "edgemoe_queue_depth") == 2)
        for _ in range(3):
            status, headers, answer = infer(url, MODEL, depth_of(pictures[3]))
            assert status == 503 and 1 <= int(headers["retry-after"]) <= 60
            assert answer == {"error": "2 requests wait for small already; ask again later"}
        assert get(url, "/v2/health/ready")[0] == 200  # full is not broken
        device.gate.set()
        for future, picture in zip([running, *waiting], pictures[:3], strict=True):
            status, _, answer = future.result(SECONDS)
            assert status == 200
            assert answer["outputs"][0]["data"] == expected(picture, "depth").reshape(-1).tolist()
        assert metric(url, "edgemoe_queue_depth") == 0
        assert infer(url, MODEL, depth_of(pictures[3]))[0] == 200


@pytest.fixture
def queued(monkeypatch):
    """One for each request that is in a queue: its place is counted before its body has been read."""
    count, append = threading.Semaphore(0), Engine.append

    def counted(self, request):
        result = append(self, request)
        count.release()
        return result

    monkeypatch.setattr(Engine, "append", counted)
    return count


def test_those_that_wait_run_together(joint_bundle, pictures, expected, queued):
    """Where the bundle has programs for it; and what fails together is run one by one."""
    with gated(joint_bundle, limits=Limits()) as (device, url), ThreadPoolExecutor() as pool:
        futures = [pool.submit(infer, url, MODEL, depth_of(pictures[0]))]
        assert device.began.acquire(timeout=SECONDS)
        futures += [pool.submit(infer, url, MODEL, depth_of(picture)) for picture in pictures[1:4]]
        assert all(queued.acquire(timeout=SECONDS) for _ in futures)
        assert metric(url, "edgemoe_queue_depth") == 3
        device.failures += [DeviceError("no power"), DeviceError("no power")]
        device.gate.set()
        answers = [future.result(SECONDS) for future in futures]
        assert device.programs == ["depth", Joined(("depth",), 3), "depth", "depth", "depth"]
        assert [status for status, *_ in answers] == [500, 200, 200, 200]
        assert answers[0][2] == {"error": "the request failed: no power"}
        for (_, _, answer), picture in zip(answers[1:], pictures[1:4], strict=True):
            assert answer["outputs"][0]["data"] == expected(picture, "depth").reshape(-1).tolist()
        assert metric(url, "edgemoe_failures_total") == 2


def test_failures_are_told_and_go_by(runtime_bundle, pictures, capfd):
    told = []
    with gated(runtime_bundle, tell=told.append) as (device, url):
        device.gate.set()
        for error in (DeviceError("no power"), ZeroDivisionError("a fault"), SystemExit("of somebody")):
            device.failures.append(error)
            status, _, answer = infer(url, MODEL, depth_of(pictures[0]))
            assert status == 500 and answer == {"error": f"the request failed: {error}"}
        assert infer(url, MODEL, depth_of(pictures[0]))[0] == 200
    assert told[0] == "small: DeviceError: no power" and len(told) == 3
    assert "Traceback" not in capfd.readouterr().err


def test_timeout(runtime_bundle, pictures):
    """Of what waits and of what runs; a device that works for too long makes the server not ready, until it ends."""
    with gated(runtime_bundle, limits=Limits(timeout=0.4)) as (device, url), ThreadPoolExecutor() as pool:
        both = [pool.submit(infer, url, MODEL, depth_of(picture)) for picture in pictures[:2]]
        status, _, answer = infer(url, MODEL, depth_of(pictures[2], parameters={"timeout": 50_000}))
        assert status == 504 and answer == {"error": "the request was not finished within 0.05 s"}
        for future in both:
            status, _, answer = future.result(SECONDS)
            assert status == 504 and answer == {"error": "the request was not finished within 0.4 s"}
        until(lambda: get(url, "/v2/health/ready")[0] == 503)
        assert get(url, f"/v2/models/{MODEL}/ready")[0] == 503 and get(url, "/v2/health/live")[0] == 200
        assert metric(url, "edgemoe_ready") == metric(url, "edgemoe_queue_depth") == 0
        device.gate.set()
        until(lambda: get(url, "/v2/health/ready")[0] == 200)
        assert infer(url, MODEL, depth_of(pictures[2]))[0] == 200
        assert len(device.programs) == 2  # what had been given up in the queue was not run


def open_line(url):
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), SECONDS)


def head(length):
    lines = (f"POST /v2/models/{MODEL}/infer HTTP/1.1", "Host: localhost", f"Content-Length: {length}", "", "")
    return "\r\n".join(lines).encode()


def test_bodies_that_do_not_come(runtime_bundle, pictures):
    """They hold a place in the queue, so that they are few, and only for a while."""
    with gated(runtime_bundle, limits=Limits(queue=2, timeout=1.0)) as (device, url):
        device.gate.set()
        with open_line(url) as one, open_line(url) as other:
            one.sendall(head(1000) + b"{")
            other.sendall(head(1000))
            until(lambda: metric(url, "edgemoe_queue_depth") == 2)
            assert infer(url, MODEL, depth_of(pictures[0]))[0] == 503
            assert other.recv(1000).startswith(b"HTTP/1.1 408") and one.recv(1000).startswith(b"HTTP/1.1 408")
        assert infer(url, MODEL, depth_of(pictures[0]))[0] == 200


def test_clients_that_leave(runtime_bundle, pictures, capfd):
    """In the middle of a request, or while it waits: nothing is run for them, and their places are free again."""
    text = json.dumps(depth_of(pictures[0])).encode()
    with gated(runtime_bundle, limits=Limits(queue=2)) as (device, url), ThreadPoolExecutor() as pool:
        running = pool.submit(infer, url, MODEL, depth_of(pictures[0]))
        assert device.began.acquire(timeout=SECONDS)
        for sent in (head(len(text)) + text[:50], head(len(text)) + text, head(len(text)) + text):
            with open_line(url) as line:
                line.sendall(sent)
                until(lambda: metric(url, "edgemoe_queue_depth") == 1)
            until(lambda: metric(url, "edgemoe_queue_depth") == 0)
        device.gate.set()
        assert running.result(SECONDS)[0] == 200 and device.programs == ["depth"]
    assert "Traceback" not in capfd.readouterr().err


# The command's end

_SLOW = """
import os, sys, time
from edgemoe.runtime.reference import ReferenceExecutor
execute = ReferenceExecutor.execute
def slow(*arguments, **options):
    time.sleep(float(os.environ["SLOW"]))
    return execute(*arguments, **options)
ReferenceExecutor.execute = slow
from edgemoe.cli.main import main
main()
"""


@contextlib.contextmanager
def command(bundle, *arguments, slow=0.0):
    """``edgemoe serve`` in a process of its own, whose programs take longer: the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, "serve", str(bundle), "--port", "0", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SLOW": str(slow)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, re.search(r"http://[^/]+", line)[0]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def bundle_file(runtime_bundle, tmp_path):
    runtime_bundle.save(tmp_path / "x.emoe")
    return tmp_path / "x.emoe"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_finished(bundle_file, pictures, number):
    """It says at once that it is not ready and takes nothing more; then it ends well."""
    with command(bundle_file, slow=0.5) as (process, url), ThreadPoolExecutor() as pool:
        accepted = [pool.submit(infer, url, MODEL, depth_of(picture)) for picture in pictures[:4]]
        until(lambda: metric(url, "edgemoe_open_requests") == 4)
        process.send_signal(number)
        until(lambda: get(url, "/v2/health/ready")[0] == 503)
        assert get(url, "/v2/health/live")[0] == 200 and metric(url, "edgemoe_ready") == 0
        status, headers, answer = infer(url, MODEL, depth_of(pictures[4]))
        assert (status, headers["retry-after"]) == (503, "1") and "is being ended" in answer["error"]
        assert [future.result(SECONDS)[0] for future in accepted] == [200] * 4
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and errors == ""


def test_grace(bundle_file):
    """With nothing to finish it still says for a while that it is not ready, so that a balancer learns of it."""
    with command(bundle_file, "--grace", "2") as (process, url):
        process.terminate()
        until(lambda: get(url, "/v2/health/ready")[0] == 503)
        time.sleep(0.5)
        assert get(url, "/v2/health/ready")[0] == 503
        assert process.wait(SECONDS) == 0


def test_a_second_signal_ends_it_at_once(bundle_file, pictures):
    """What is not finished is refused, so that a balancer asks another server."""
    with command(bundle_file, slow=3) as (process, url), ThreadPoolExecutor() as pool:
        lost = [pool.submit(infer, url, MODEL, depth_of(picture)) for picture in pictures[:2]]
        until(lambda: metric(url, "edgemoe_open_requests") == 2)
        process.terminate()
        until(lambda: get(url, "/v2/health/ready")[0] == 503)
        begin = time.monotonic()
        process.terminate()
        assert [future.result(SECONDS)[0] for future in lost] == [503, 503]
        assert time.monotonic() - begin < 2
        _, errors = process.communicate(timeout=SECONDS)
        assert "Traceback" not in errors


def test_numbers_of_a_response_are_the_device_s_share(joint_bundle, pictures, queued):
    """Of a program that others shared, a request is told its part: the parts are the whole."""
    with gated(joint_bundle) as (device, url), ThreadPoolExecutor() as pool:
        first = pool.submit(infer, url, MODEL, depth_of(pictures[0]))
        assert device.began.acquire(timeout=SECONDS)
        others = [pool.submit(infer, url, MODEL, depth_of(picture)) for picture in pictures[1:3]]
        assert all(queued.acquire(timeout=SECONDS) for _ in (first, *others))
        device.gate.set()
        seconds = [future.result(SECONDS)[2]["parameters"]["device_seconds"] for future in (first, *others)]
        assert seconds[1] == seconds[2] and device.programs[1] == Joined(("depth",), 2)
        np.testing.assert_allclose(metric(url, "edgemoe_device_seconds_total"), sum(seconds))
