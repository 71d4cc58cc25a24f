"""The demo's page in headless Chromium, driven over its DevTools protocol: what is shown, and what clicks do."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

import edgemoe
from edgemoe.demo.player import Player
from edgemoe.errors import DeviceError
from edgemoe.reports.pictures import colour
from edgemoe.runtime.platforms.null import NullPlatform
from support.watching import serving

TASKS = ("segmentation", "depth", "normals", "edges", "scene")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# As root Chromium has no sandbox, and containers have little shared memory. Nothing but the page may be fetched.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--mute-audio",
)


def find_browser() -> str:
    """Chromium's executable. Continuous integration sets EDGEMOE_REQUIRE_BROWSER, so that it is not skipped there."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    message = "no Chromium to test the demo's page in; Debian: sudo apt-get install chromium-headless-shell"
    assert not os.environ.get("EDGEMOE_REQUIRE_BROWSER"), message
    pytest.skip(message)


class Browser:
    """One page. A context manager.

    Attributes:
        problems: exceptions and errors of the page's console
        requests: addresses of all that the page has fetched
    """

    def __init__(self, profile: Path, width: int = 1440, height: int = 900) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._process = subprocess.Popen(
            [find_browser(), *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._open = ExitStack()
        self._open.enter_context(self._process)  # waits for its end
        # The whole group: Debian's executable is a script, whose end would leave the browser itself behind.
        self._open.callback(os.killpg, self._process.pid, signal.SIGKILL)
        self._count, self._session, self._loaded = 0, "", False
        with ExitStack() as failed:
            failed.push(self._open)
            self._socket = self._open.enter_context(
                connect(self._address(), max_size=None, compression=None, close_timeout=1)
            )
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._call(f"{domain}.enable")
            self.resize(width, height)
            failed.pop_all()

    def _address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "DevTools listening on " in line:
                return line.rpartition(" ")[2].strip()
        raise AssertionError("Chromium has ended before it listened")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters, **session}))
        while (message := self._receive()).get("id") != self._count:
            pass
        assert "error" not in message, f"{method}: {message.get('error')}"
        return message["result"]

    def _receive(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv(timeout=60))
        event, parameters = message.get("method"), message.get("params", {})
        if event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(parameters["exceptionDetails"]))
        elif event == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        self._loaded |= event == "Page.loadEventFired"
        return message

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._loaded = False
        self._call("Page.navigate", url=url)
        while not self._loaded:
            self._receive()

    def resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise's when it is there."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 120) -> Any:
        """Wait until an expression is true; returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}; problems: {self.problems}"
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def screenshot(self, path: Path) -> None:
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@contextmanager
def demo(folder: Path, port: int = 0, *arguments: str) -> Iterator[str]:
    """The address of ``edgemoe demo`` with the bundle and the picture in ``folder``."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edgemoe.cli",
            "demo",
            "--bundle",
            folder / "x.emoe",
            "--source",
            folder / "x.png",
            "--port",
            str(port),
            "--fps",
            "5",
            *arguments,
        ],  # a browser without a GPU shares two cores with other tests
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield re.search(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def folder(runtime_bundle, tmp_path_factory):
    found = tmp_path_factory.mktemp("demo")
    runtime_bundle.save(found / "x.emoe")
    pixels = np.random.default_rng(5).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(found / "x.png")
    return found


@pytest.fixture(scope="module")
def address(folder):
    with demo(folder) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(browser, address):
    """The page with all tasks playing, at the size of a laptop's screen."""
    browser.resize(1440, 900)
    browser.open(address)
    browser.wait("document.querySelector('#connection').textContent === 'live' && Number(fps.textContent) > 0")
    return browser


def shown(browser: Browser) -> list[str]:
    return browser.evaluate("[...document.querySelectorAll('#panels figure')].map((figure) => figure.dataset.name)")


def frame_number(browser: Browser) -> int:
    return int(browser.evaluate("document.querySelector('[data-name=input] canvas').dataset.frame ?? -1"))


def test_pictures_are_the_predictions(page, folder, runtime_bundle):
    """Pixel by pixel, after the way through PNG, WebSocket and canvas."""
    assert shown(page) == ["input", *TASKS]
    image = np.asarray(Image.open(folder / "x.png"))
    with edgemoe.open("reference", runtime_bundle) as reference:
        for task in TASKS[:-1]:
            canvas = f"document.querySelector('[data-name={task}] canvas')"
            page.wait(f"{canvas}.dataset.frame")
            pixels = page.evaluate(f"[...{canvas}.getContext('2d').getImageData(0, 0, 16, 12).data]")
            wanted = reference.run(image, task)
            np.testing.assert_array_equal(np.reshape(pixels, (12, 16, 4))[..., :3], colour(wanted.kind, wanted.values))
        label = reference.run(image, "scene").label
    assert page.evaluate("document.querySelector('.classes li').textContent").startswith(f"class {label}")


def test_figures_and_legends(page, runtime_bundle):
    cycles = {name: sum(phase.estimated_cycles for phase in task.phases) for name, task in runtime_bundle.tasks.items()}
    rows = page.evaluate(
        "[...document.querySelectorAll('#runs tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert [row[:2] for row in rows] == [[name, f"{count:,}"] for name, count in cycles.items()]
    assert page.evaluate("cycles.textContent") == f"{sum(cycles.values()):,}"
    clock = runtime_bundle.config.assumed_clock_mhz
    assert page.evaluate("milliseconds.textContent") == f"{sum(cycles.values()) / clock / 1e3:,.2f}"
    assert f"an assumed {clock:.0f} MHz" in page.evaluate("document.querySelector('#clock-note').textContent")
    assert all(
        re.fullmatch(r"[\d.]+ m?s", page.evaluate(f"document.querySelector('#latency-{name}').textContent"))
        for name in ("p50", "p90")
    )
    assert page.evaluate("power.textContent") == "power: not measured" and page.evaluate("measured.hidden")
    assert page.evaluate("document.querySelectorAll('[data-name=segmentation] .legend li').length") == 5
    assert page.evaluate("document.querySelector('[data-name=depth] .ramp').textContent") == "0 m10 m"
    heights = page.evaluate(
        "[...document.querySelectorAll('#blocks .expert i')].map((bar) => bar.style.getPropertyValue('--load'))"
    )
    assert len(heights) == 5 * len(TASKS) and {"%"} == {height[-1] for height in heights}


def test_tasks_are_switched(page):
    for task in ("scene", "edges", "depth"):
        page.click(f"[data-task={task}]")
    page.wait("document.querySelectorAll('#panels figure').length === 3")
    page.wait("document.querySelectorAll('#runs tr').length === 2")
    assert shown(page) == ["input", "segmentation", "normals"]
    pressed = "[...document.querySelectorAll('#tasks [aria-pressed=true]')].map((button) => button.textContent)"
    assert page.evaluate(pressed) == ["segmentation", "normals"]
    page.click("[data-task=normals]")
    page.wait("document.querySelectorAll('#panels figure').length === 2")
    page.click("[data-task=segmentation]")  # the last one stays
    for task in TASKS[1:]:
        page.click(f"[data-task={task}]")
        page.wait(f"document.querySelector('[data-task={task}][aria-pressed=true]') !== null")
    page.wait(f"document.querySelectorAll('#runs tr').length === {len(TASKS)}")
    assert shown(page) == ["input", *TASKS]


def test_pause_and_resume(page):
    page.click("#pause")
    page.wait("document.querySelector('#connection').textContent === 'paused'")
    time.sleep(0.5)
    number = frame_number(page)
    time.sleep(0.5)
    assert frame_number(page) == number and page.evaluate("pause.textContent") == "Resume"
    page.click("#pause")
    page.wait(f"Number(document.querySelector('[data-name=input] canvas').dataset.frame) > {number}")


@pytest.mark.parametrize("width, height", [(1920, 1080), (1440, 900), (1024, 768), (390, 844)])
def test_fits_every_screen(page, width, height):
    page.resize(width, height)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.evaluate("edge = document.querySelector('main').getBoundingClientRect().right + 1")
    outside = page.evaluate(
        "[...document.querySelectorAll('main *')].filter("
        "(element) => element.getBoundingClientRect().right > edge).length"
    )
    assert outside == 0


def test_everything_is_local_and_nothing_fails(page, address):
    assert {request.startswith(address) for request in page.requests if not request.startswith("about:")} == {True}
    assert page.problems == []


def test_finds_the_server_again(browser, folder):
    with demo(folder, 0, "--task", "depth") as address:
        browser.open(address)
        browser.wait("document.querySelector('#connection').textContent === 'live'")
    browser.wait("document.querySelector('#connection').textContent === 'not connected'")
    with demo(folder, int(address.rstrip("/").rpartition(":")[2])):
        browser.wait("document.querySelector('#connection').textContent === 'live'")
        browser.wait(f"document.querySelectorAll('#runs tr').length === {len(TASKS)}")


def test_a_board_that_fails_recovers_and_is_gone(browser, runtime_bundle, pictures):
    """Its clock and power are shown; while all frames fail no speed is; the source's end is told."""
    platform = NullPlatform(runtime_bundle.config)
    platform.clock_mhz, platform.power = 96.97, lambda: {"PL": 2.0, "PS": 1.5}
    is_over, read = threading.Event(), platform.read

    def source():
        while not is_over.is_set():
            yield from pictures
        raise ValueError("the camera is gone")

    def fail(offset):
        raise DeviceError("the board does not answer")

    connection = "document.querySelector('#connection').textContent"
    with (
        edgemoe.open(platform, runtime_bundle) as accelerator,
        Player(accelerator, source(), 20, ["depth", "edges"]) as player,
        serving(player) as url,
    ):
        browser.open(url)
        browser.wait("watts.textContent === '3.50 W' && millijoules.textContent.endsWith(' mJ a frame')")
        assert browser.evaluate("power.hidden")
        assert browser.evaluate("clock.textContent") == "ms at 97\N{NO-BREAK SPACE}MHz"
        platform.read = fail
        browser.wait(f"{connection} === 'failing'")
        assert {browser.evaluate(f"{name}.textContent") for name in ("fps", "watts", "millijoules")} == {"–"}
        assert "the board does not answer" in browser.evaluate("banner.textContent")
        platform.read = read
        browser.wait(f"{connection} === 'live' && Number(fps.textContent) > 0")
        browser.wait("banner.hidden")
        is_over.set()
        browser.wait(f"{connection} === 'ended'")
        assert browser.evaluate("banner.textContent") == "Playing has ended: the camera is gone"
        assert browser.evaluate("pause.disabled && document.querySelector('[data-task=depth]').disabled")
    assert [problem for problem in browser.problems if "ERR_CONNECTION_REFUSED" not in problem] == []
