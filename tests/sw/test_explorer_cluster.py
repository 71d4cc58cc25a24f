"""Tasks on Dask: every job has one result, also when a worker is killed while it works."""

import os
import signal
import time
from collections import Counter

import pytest

from edgemoe.errors import DeviceError, MissingExtraError
from edgemoe.explorer.cluster import run_tasks
from support.slow_tasks import failing_task, slow_task


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
    ) as found:
        yield found


def jobs(tmp_path, count, seconds):
    return [{"number": number, "log": str(tmp_path / "log"), "seconds": seconds} for number in range(count)]


def begun(tmp_path):
    path = tmp_path / "log"
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_worker_that_is_killed_loses_no_task(cluster, tmp_path):
    killed = []

    def kill_the_other(index, result):
        """After the first result: the process that is at another job."""
        if killed:
            return
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            working = [process for number, process in begun(tmp_path) if process != result["process"]]
            if working:
                killed.append(working[-1])
                os.kill(working[-1], signal.SIGKILL)
                return
            time.sleep(0.05)
        pytest.fail("one worker did everything")

    done = Counter()

    def on_done(index, result):
        done[index] += 1
        kill_the_other(index, result)

    work = jobs(tmp_path, 8, 0.7)
    results = run_tasks(slow_task, work, scheduler=cluster.scheduler_address, on_done=on_done)
    assert killed, "no worker was killed"
    assert [result["number"] for result in results] == list(range(8))
    assert done == Counter(range(8))  # each once
    assert len(begun(tmp_path)) > 8  # what the killed one was at began again
    assert killed[0] not in {process for _, process in begun(tmp_path)[-2:]}


def test_results_come_in_the_order_of_the_jobs(cluster, tmp_path):
    work = jobs(tmp_path, 4, 0)
    work[0]["seconds"] = 0.5
    found = run_tasks(slow_task, work, scheduler=cluster.scheduler_address)
    assert [result["number"] for result in found] == [0, 1, 2, 3]
    assert run_tasks(slow_task, [], scheduler=cluster.scheduler_address) == []


def test_a_failure_is_one_message(cluster, tmp_path):
    with pytest.raises(DeviceError, match="^a task failed: job 0 is refused$"):
        run_tasks(failing_task, jobs(tmp_path, 1, 0), scheduler=cluster.scheduler_address)


def test_processes_of_its_own(tmp_path):
    pytest.importorskip("distributed")
    results = run_tasks(slow_task, jobs(tmp_path, 2, 0), workers=1)
    assert [result["number"] for result in results] == [0, 1]
    assert os.getpid() not in {result["process"] for result in results}


def test_nobody_answers(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("edgemoe.explorer.cluster.PATIENCE", "200ms")
    with pytest.raises(DeviceError, match="no Dask scheduler answers at tcp://127.0.0.1:1: "):
        run_tasks(slow_task, [{"number": 0}], scheduler="tcp://127.0.0.1:1")


def test_without_dask(monkeypatch):
    monkeypatch.setattr("edgemoe.extras.is_installed", lambda module: module != "distributed")
    with pytest.raises(MissingExtraError, match=r"edgemoe explore --verify needs Dask: pip install .*\[explore\]"):
        run_tasks(slow_task, [{"number": 0}])
