"""One driver an accelerator: in a process, across processes and users, after crashes and forks."""

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edgemoe
from edgemoe import AcceleratorLock, BundleError, DeviceError, DeviceInUse
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.platforms.lock_file import FOLDER_VARIABLE, lock_folder
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import PRESETS

OWN = rf"in use by process {os.getpid()}, this one; close it first"
Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where lock files are, here and in the processes that the tests start."""
    place = tmp_path / "locks"
    place.mkdir()
    place.chmod(0o1777)
    monkeypatch.setenv(FOLDER_VARIABLE, str(place))
    return place


@pytest.fixture
def everybodys_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that other users may enter: pytest's own are closed to them, again whenever a pytest starts beside this."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o1777)
        monkeypatch.setenv(FOLDER_VARIABLE, place)
        yield Path(place)


@pytest.fixture
def run(runtime_bundle: edgemoe.Bundle, tmp_path: Path) -> Iterator[Run]:
    """Starts Python on a text that finds ``platform`` (with the lock ``board``) and ``bundle``."""
    runtime_bundle.save(tmp_path / "x.emoe")
    started = []
    begin = f"""
import os, sys, time
import edgemoe
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe_hw.spec.config import PRESETS
platform = NullPlatform(PRESETS["tiny"])
platform.lock = edgemoe.AcceleratorLock("board")
bundle = edgemoe.Bundle.load({str(tmp_path / "x.emoe")!r})
def say(*words):
    print(*words, flush=True)
"""

    def start(text: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", begin + text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # with its forks
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """What it says next; nothing, if it does not within two minutes."""
    assert process.stdout is not None
    patience = threading.Timer(120, process.kill)
    patience.start()
    try:
        return process.stdout.readline().strip()
    finally:
        patience.cancel()


def board() -> NullPlatform:
    platform = NullPlatform(PRESETS["tiny"])
    platform.lock = AcceleratorLock("board")
    return platform


def test_two_drivers_on_one_platform(simulate, runtime_bundle, pictures, expected):
    """The second is refused while the first's program runs, which is not disturbed."""
    platform, _ = simulate(runtime_bundle)
    first = Driver(platform, runtime_bundle)
    first.pack(0, pictures[0])
    first.start("depth", 0, 0)
    for attempt in (lambda: Driver(platform, runtime_bundle), lambda: edgemoe.open(platform, runtime_bundle)):
        with pytest.raises(DeviceInUse, match=OWN) as caught:
            attempt()
        assert caught.value.process == os.getpid()
    first.finish("depth")
    np.testing.assert_array_equal(first.unpack("depth", 0), expected(pictures[0], "depth"))
    first.close()


def test_refused_before_anything_is_touched(runtime_bundle):
    platform = board()
    with contextlib.closing(Driver(platform, runtime_bundle)):
        other = board()
        other.read = other.write = other.allocate = pytest.fail
        with pytest.raises(DeviceInUse, match=f"accelerator board is {OWN}"):
            Driver(other, runtime_bundle)
    Driver(board(), runtime_bundle).close()


@pytest.mark.parametrize("is_named", [False, True])
def test_threads(runtime_bundle, is_named):
    """One of many that open the same platform at once."""
    platform, begin = NullPlatform(PRESETS["tiny"]), threading.Barrier(8)
    if is_named:
        platform.lock = AcceleratorLock("board")
    found: list[object] = []

    def attempt() -> None:
        begin.wait()
        try:
            found.append(Driver(platform, runtime_bundle))
        except DeviceInUse as error:
            found.append(error.process)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(os.getpid()) == 7
    (driver,) = [one for one in found if isinstance(one, Driver)]
    driver.close()


def test_failed_opening_lets_go(runtime_bundle):
    platform = board()
    platform.registers[regs.find("CONFIG_HASH").offset] = 1
    with pytest.raises(BundleError, match="hash 0x00000001"):
        Driver(platform, runtime_bundle)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        Driver(platform, runtime_bundle, depth=0)
    Driver(board(), runtime_bundle).close()


def test_dropped_driver_lets_go(runtime_bundle):
    Driver(board(), runtime_bundle)
    Driver(board(), runtime_bundle).close()


def test_another_process(run, runtime_bundle):
    """Refused at once, with its number; a process that is killed has let go by then."""
    other = run("driver = Driver(platform, bundle)\nsay('open')\ntime.sleep(600)")
    assert line(other) == "open"
    begin = time.perf_counter()
    with pytest.raises(DeviceInUse, match=f"accelerator board is in use by process {other.pid}; close it th") as caught:
        Driver(board(), runtime_bundle)
    assert caught.value.process == other.pid and time.perf_counter() - begin < 2
    other.send_signal(signal.SIGKILL)
    other.wait()
    driver = Driver(board(), runtime_bundle)
    third = run("try:\n    Driver(platform, bundle)\nexcept edgemoe.DeviceInUse as error:\n    say(error)")
    assert line(third).startswith(f"accelerator board is in use by process {os.getpid()}; close it there first, or end")
    driver.close()


def test_many_processes_at_once(run):
    """Whoever comes first has it, and no two at a time."""
    text = """
def use():
    try:
        driver = Driver(platform, bundle)
    except edgemoe.DeviceInUse as error:
        assert error.process not in (0, os.getpid()), error
        return 0
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    os.unlink(marker)
    driver.close()
    return 1
marker = "MARKER"
say("ready")
sys.stdin.readline()
say(sum(use() for _ in range(200)))
"""
    marker = str(Path(os.environ[FOLDER_VARIABLE]) / "marker")
    processes = [run(text.replace("MARKER", marker)) for _ in range(4)]
    assert [line(process) for process in processes] == ["ready"] * 4
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    counts = [int(line(process)) for process in processes]
    assert sum(counts) > 0 and all(process.wait() == 0 for process in processes)


def test_fork(run, runtime_bundle):
    """It has no right to the parent's accelerator, its end disturbs nothing, and the lock ends with the parent."""
    other = run(
        """
own = platform.lock
driver = Driver(platform, bundle)
if os.fork() == 0:
    def refused(use):
        try:
            use()
        except edgemoe.DeviceInUse as error:
            say(error)

    refused(lambda: driver.start("depth", 0, 0))
    refused(driver.reset)
    refused(lambda: Driver(platform, bundle))
    platform.lock = edgemoe.AcceleratorLock("board")
    refused(lambda: Driver(platform, bundle))
    platform.lock = own
    platform.read = platform.write = platform.close = None
    driver.close()
    say("closed")
time.sleep(600)
"""
    )
    fork = f"was opened by process {other.pid}, of which this one is a fork; open it in the process that uses it"
    assert [line(other) for _ in range(3)] == [f"accelerator board {fork}"] * 3
    assert line(other).startswith(f"accelerator board is in use by process {other.pid}; close it there first, or")
    assert line(other) == "closed"
    with pytest.raises(DeviceInUse, match=f"in use by process {other.pid}"):
        Driver(board(), runtime_bundle)
    other.send_signal(signal.SIGKILL)
    other.wait()
    Driver(board(), runtime_bundle).close()  # the fork lives


def test_simulation_in_a_fork(run):
    """A simulation without a name is copied by a fork, and each has its own."""
    other = run(
        """
platform.lock = edgemoe.AcceleratorLock()
driver = Driver(platform, bundle)
if os.fork() == 0:
    driver.execute("depth", 0, 0)
    driver.close()
    os._exit(0)
assert os.wait()[1] == 0
driver.execute("depth", 0, 0)
say("done")
"""
    )
    assert line(other) == "done"


def test_parts():
    """Several parts at a time, or the whole, but not both."""
    one, two = (AcceleratorLock(f"at {place}", part_of="fpga") for place in (0, 4096))
    one.claim()
    two.claim()
    other, whole = AcceleratorLock("at 0", part_of="fpga"), AcceleratorLock("fpga")
    with pytest.raises(DeviceInUse, match=f"accelerator fpga at 0 is {OWN}"):
        other.claim()
    one.release()
    with pytest.raises(DeviceInUse, match=f"accelerator fpga is {OWN}"):
        whole.reserve()
    two.release()
    whole.reserve()
    whole.claim()
    with pytest.raises(DeviceInUse, match=f"accelerator fpga is {OWN}"):
        other.claim()
    whole.unclaim()
    with pytest.raises(DeviceInUse, match="fpga is in use"):
        other.claim()  # it is reserved still
    whole.release()
    whole.release()
    other.claim()
    other.release()


def test_files(folder):
    """Everybody's, whatever the umask; gone after use; what a crash has left does not matter."""
    before = os.umask(0o077)
    try:
        lock = AcceleratorLock("serial /dev/ttyUSB0")
        lock.claim()
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert path.name == "edgemoe-serial %2Fdev%2FttyUSB0.lock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 and path.read_text() == f"{os.getpid()}\n"
    lock.release()
    assert not list(folder.iterdir())
    for left in ("", "no number", "999999999\n", "-1\n", "9" * 40):
        path.write_text(left)
        lock.claim()
        assert path.read_text() == f"{os.getpid()}\n"
        lock.release()
    AcceleratorLock("x" * 300).claim()


def test_file_that_cannot_be_used(folder):
    path = folder / "edgemoe-board.lock"
    path.symlink_to("/etc/passwd")
    with pytest.raises(DeviceError, match=rf"board: its lock file cannot be opened: .*{path}.*; remove it, or set "):
        AcceleratorLock("board").claim()
    path.unlink()
    with pytest.raises(DeviceError, match=r"cannot be made: .*none.*; make that folder everybody's .*or set"):
        AcceleratorLock("board", folder=folder / "none").claim()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users(run, everybodys_folder):
    """Two users exclude each other, whoever was first; a file that is not everybody's is one clear line."""
    claim = """
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    platform.lock.claim()
    say("claimed")
    sys.stdin.readline()
except edgemoe.DeviceError as error:
    say(error)
"""
    other = run(claim)
    assert line(other) == "claimed"
    with pytest.raises(DeviceInUse, match=f"process {other.pid};"):
        AcceleratorLock("board").claim()
    other.communicate("\n")
    lock = AcceleratorLock("board")
    lock.claim()
    assert line(run(claim)).startswith(f"accelerator board is in use by process {os.getpid()};")
    lock.release()
    path = everybodys_folder / "edgemoe-board.lock"
    path.touch(0o600)
    assert re.match(
        rf"accelerator board: its lock file {path} cannot be opened \(Permission denied\); let its owner remove it",
        line(run(claim)),
    )


def test_folder(tmp_path, monkeypatch):
    """The same for all users: where everybody may write, whoever asks."""
    monkeypatch.delenv(FOLDER_VARIABLE)
    own, everybodys = tmp_path / "own", tmp_path / "everybodys"
    own.mkdir(0o755)
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    assert lock_folder([tmp_path / "none", own, everybodys]) == everybodys
    with pytest.raises(DeviceError, match=rf"none of {own} is a folder in which every user may make files .*EDGEMOE_"):
        lock_folder([own])
    assert lock_folder().is_dir()
