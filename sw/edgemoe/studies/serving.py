"""Requests a second and latencies of ``edgemoe serve``: of one server, and of two behind a balancer.

Servers and balancer are processes of this machine, and so is every client, so that the figures are of all of them
together: on a machine of a few cores the clients take their part of it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.opening import open as open_device
from edgemoe.studies.baselines.suite import cpu_info
from edgemoe_models.datasets import scenes

__all__ = ["BALANCER", "balanced", "has_balancer", "measure_serving", "server", "serving_rows"]

#: The balancer's configuration, for two servers.
BALANCER = Path(__file__).parents[1] / "serve" / "haproxy.cfg"
_NAME = "haproxy"
_PATIENCE = 120.0  # seconds for a process to be ready: the simulator may have to be built
_POLL = 0.05
_NEEDS = f"two servers need the balancer HAProxy ({_NAME}); Debian: sudo apt-get install {_NAME}"


@contextlib.contextmanager
def server(bundle: Path, device: str = "reference", options: Sequence[str] = ()) -> Iterator[tuple[Any, str]]:
    """``edgemoe serve`` on any free port: its process, and its address without a slash at the end.

    Args:
        bundle: a file, or a packaged bundle's name
        device: what runs it
        options: further ones of the verb

    Raises:
        DeviceError: it does not start; the message is its own
    """
    command = [sys.executable, "-m", "edgemoe.cli", "serve", str(bundle), "--device", device, "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        found = re.search(r"http://[^/\s]+", process.stdout.readline())
        if found is None:
            raise DeviceError("edgemoe serve did not start; what it said is above")
        yield process, found[0]
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def has_balancer() -> bool:
    """Whether the balancer is installed."""
    return shutil.which(_NAME) is not None


@contextlib.contextmanager
def balanced(servers: Sequence[str]) -> Iterator[str]:
    """The address of a balancer in front of two servers' addresses.

    Raises:
        DeviceError: it is not installed, or does not start
    """
    executable = shutil.which(_NAME)
    if executable is None:
        raise DeviceError(_NEEDS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    names = ("EDGEMOE_BALANCER", "EDGEMOE_SERVER_1", "EDGEMOE_SERVER_2")
    addresses = (address, *(url.partition("://")[2] for url in servers))
    environment = {**os.environ, **dict(zip(names, addresses, strict=True))}
    process = subprocess.Popen([executable, "-db", "-q", "-f", str(BALANCER)], env=environment)
    try:
        _await(address, process)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _await(address: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    end = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(_POLL)
    raise DeviceError(f"the balancer did not start; {_NAME} -c -f {BALANCER} says why")


def serving_rows(
    bundle: Path,
    loaded: Bundle,
    device: str,
    clients: Sequence[int],
    seconds: float,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """One server, and two behind the balancer where it is installed.

    Args:
        bundle: what they serve
        loaded: the same, loaded
        device: of each server
        clients: how many ask at the same time, row by row
        seconds: that each row takes
        progress: told what is measured

    Returns:
        ``model``, ``device``, ``task``, ``machine`` and ``rows``: ``servers`` and what ``measure_serving`` gives

    Raises:
        DeviceError: a server does not start, or a request fails
    """
    machine = {
        "cpu": cpu_info("model name") or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],  # of what else runs
        "python": platform.python_version(),
    }
    task = next(iter(loaded.tasks))
    options = ("--queue", str(max(16, *clients)))
    rows = []
    for count in (1, 2) if has_balancer() else (1,):
        with contextlib.ExitStack() as stack:
            urls = [stack.enter_context(server(bundle, device, options))[1] for _ in range(count)]
            url = urls[0] if count == 1 else stack.enter_context(balanced(urls))
            for number in clients:
                progress(f"{count} server{'s' * (count > 1)}, {number} client{'s' * (number > 1)}")
                rows.append({"servers": count, **measure_serving(url, loaded, task, number, seconds)})
    return {"model": loaded.model.name, "device": device, "task": task, "machine": machine, "rows": rows}


def measure_serving(url: str, bundle: Bundle, task: str, clients: int, seconds: float) -> dict[str, Any]:
    """Clients that each ask for one picture's task after the other, in threads of a process of their own.

    Returns:
        ``clients``, ``requests``, ``requests_per_second`` and of a request ``p50_ms``, ``p99_ms``, ``max_ms``: from its
        picture to its raw outputs and prediction at the client

    Raises:
        DeviceError: a request failed
    """
    model = bundle.model
    picture = scenes.generate_scene(scenes.SPLITS["demo"].start, model.image_height, model.image_width).image
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spent, wall = pool.apply(_ask, (url, bundle, task, np.ascontiguousarray(picture), clients, seconds))
    middle, high, longest = np.percentile(spent, (50, 99, 100)) * 1e3
    return {
        "clients": clients,
        "requests": len(spent),
        "requests_per_second": len(spent) / wall,
        "p50_ms": float(middle),
        "p99_ms": float(high),
        "max_ms": float(longest),
    }


def _ask(url: str, bundle: Bundle, task: str, picture: Any, clients: int, seconds: float) -> tuple[list[float], float]:
    """Seconds of each request, and of all together."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_device("remote", bundle, url=url)) for _ in range(clients)]
        for each in opened:
            each.run(picture, task)
        begin = time.perf_counter()

        def ask(accelerator: Any) -> list[float]:
            spent = []
            while (now := time.perf_counter()) < begin + seconds:
                accelerator.run(picture, task)
                spent.append(time.perf_counter() - now)
            return spent

        with ThreadPoolExecutor(clients) as pool:
            every = [each for part in pool.map(ask, opened) for each in part]
        return every, time.perf_counter() - begin
