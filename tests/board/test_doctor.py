"""What ``edgemoe boards doctor`` collects, on machines that are made up: of a board, of none, of one that fails."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemoe.boards import load_board
from edgemoe.boards.bitstream import publish
from edgemoe.runtime import doctor, surroundings
from edgemoe.runtime.doctor import examine, problems, summary
from edgemoe.runtime.platforms import pynq_probe
from edgemoe_hw.spec.config import ISA_VERSION

BOARD = load_board("kv260")


@pytest.fixture
def kria(tmp_path):
    """Files of a Kria board's system."""
    root = tmp_path / "root"
    for name, text in {
        "proc/device-tree/model": "ZynqMP SMK-K26 Rev1\0",
        "proc/device-tree/compatible": "xlnx,zynqmp-sk-kv260\0xlnx,zynqmp\0",
        "proc/cmdline": "earlycon root=LABEL=writable cma=1000M uio_pdrv_genirq.of_id=generic-uio token=SECRET\n",
        "proc/meminfo": "MemTotal:        4030416 kB\nCmaTotal:        1024000 kB\nCmaFree:          998400 kB\n",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
        "home/ubuntu/REVISION": "Release 2022_10_21 a2bf24e\n",
        "sys/class/fpga_manager/fpga0/firmware": "",
        "sys/class/fpga_manager/fpga0/name": "Xilinx ZynqMP FPGA Manager\n",
        "sys/class/fpga_manager/fpga0/state": "operating\n",
        "sys/class/uio/uio4/name": "fabric\n",
        "sys/class/hwmon/hwmon0/name": "ina260_u14\n",
        "sys/class/hwmon/hwmon0/power1_input": "7250000\n",
        "sys/module/zocl/version": "",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def machine(kria, monkeypatch):
    """``examine`` sees the Kria's files, no overlays, and a PYNQ that has a device."""
    for name in ("board", "system"):
        function = getattr(surroundings, name)
        monkeypatch.setattr(surroundings, name, lambda function=function: function(kria))
    monkeypatch.setattr(surroundings, "overlay_folders", list)
    monkeypatch.setattr(doctor, "probe_pynq", lambda: {"version": "3.0.1", "clocks": {"fclk0_mhz": 99.999}})
    monkeypatch.setenv("XILINX_XRT", "/usr")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    versions = surroundings.versions()
    monkeypatch.setattr(surroundings, "versions", lambda: versions | {"pynq": "3.0.1"})
    return kria


@pytest.fixture
def flashed(tmp_path, monkeypatch):
    """An overlay in somebody's home: its manifest."""
    work, out = tmp_path / "work", tmp_path / "home" / "edgemoe"
    work.mkdir()
    for name, text in (("edgemoe.bit", "bits"), ("edgemoe.hwh", "<EDKSYSTEM/>"), ("result.json", '{"wns_ns": 0.1}')):
        (work / name).write_text(text)
    manifest = publish(BOARD, work, out / "kv260")
    (manifest.parent / "bundle.emoe").write_text("none")
    monkeypatch.setattr(surroundings, "overlay_folders", lambda: [out])
    return manifest


def test_board(kria):
    assert surroundings.board(kria) == {
        "is_board": True,
        "model": "ZynqMP SMK-K26 Rev1",
        "compatible": ["xlnx,zynqmp-sk-kv260", "xlnx,zynqmp"],
        "pynq_board": None,
        "image": "Release 2022_10_21 a2bf24e",
        "fpga_manager": "Xilinx ZynqMP FPGA Manager",
        "fpga_state": "operating",
        "uio": ["fabric"],
        "zocl": True,
        "rails": ["ina260_u14 power1"],
    }


def test_system(kria, monkeypatch):
    """Of the kernel's command line and of the environment only what is listed: anything else may be a secret."""
    monkeypatch.setenv("BOARD", "KV260")
    monkeypatch.setenv("GITHUB_TOKEN", "SECRET")
    found = surroundings.system(kria)
    assert found["distribution"] == "Ubuntu 22.04.4 LTS"
    assert found["memory_mib"] == {"total": 3935, "cma": 1000, "cma_free": 975}
    assert found["boot"] == ["cma=1000M", "uio_pdrv_genirq.of_id=generic-uio"]
    assert found["environment"]["BOARD"] == "KV260" and "SECRET" not in json.dumps(found)


def test_no_board(tmp_path):
    """Nothing is there, and nothing fails."""
    found = surroundings.board(tmp_path)
    assert not found.pop("is_board") and not any(found.values())
    assert surroundings.system(tmp_path)["distribution"] is None


def test_names_are_left_out(monkeypatch):
    monkeypatch.setattr(surroundings.platform, "node", lambda: "annas-board")
    text = "/home/anna/edgemoe/x.bit, /home/xilinx/y, /Users/bob: annas-board annas-boards"
    assert (
        surroundings.without_names(text) == "/home/USER/edgemoe/x.bit, /home/xilinx/y, /Users/USER: HOST annas-boards"
    )
    monkeypatch.setenv("HOME", "/data/staff/anna")  # homes may lie anywhere
    assert surroundings.without_names("at /data/staff/anna/edgemoe/x.bit") == "at ~/edgemoe/x.bit"
    monkeypatch.setattr(surroundings.platform, "node", lambda: "pynq")
    assert surroundings.without_names("pynq 3.0.1") == "pynq 3.0.1"


def test_selftest_on_the_accelerator(machine, flashed, tmp_path, monkeypatch):
    """Of the newest overlay, with the bundle beside it; the file is there already while it runs."""
    out, runs = tmp_path / "found.json", []

    def run(arguments, seconds):
        runs.append(arguments)
        assert "had not ended" in json.loads(out.read_text())["selftest"]["not_run"]
        return {"code": 0, "seconds": 2.5, "output": ["/home/anna/edgemoe", "self-test passed"]}

    monkeypatch.setattr(doctor, "run_module", run)
    found = examine(out)
    options = ["--device", "pynq", "--bundle", str(flashed.with_name("bundle.emoe"))]
    assert runs == [["edgemoe.runtime.selftest", *options, "--bitstream", str(flashed.with_suffix(".bit"))]]
    assert json.loads(out.read_text()) == found and found["problems"] == []
    assert found["pynq"]["clocks"] == {"fclk0_mhz": 99.999}
    assert found["selftest"]["output"][0] == "/home/USER/edgemoe"
    assert [(each["config"], each["changed_file"]) for each in found["overlays"]] == [("kv260", None)]
    lines = summary(found, out)
    assert lines[1] == f"ZynqMP SMK-K26 Rev1; overlays: {flashed.stem}.bit"
    assert lines[2:] == ["self-test on pynq: passed in 2.5 s", f"{out}: {lines[-1].partition(': ')[2]}"]


def test_problems_of_a_board(machine, flashed, tmp_path, monkeypatch):
    """Each is named, with what to do."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    values = json.loads(flashed.read_text())
    flashed.write_text(json.dumps(values | {"isa_version": ISA_VERSION - 1}))
    flashed.with_suffix(".bit").write_text("damaged")
    crash = {"code": -11, "seconds": 1.0, "output": ["Segmentation fault", ""]}
    monkeypatch.setattr(doctor, "run_module", lambda *_: crash)
    found = examine(tmp_path / "found.json")
    assert [problem.partition(":")[0] for problem in found["problems"]] == [
        "only root may load a bitstream",
        f"{flashed.stem}.bit is missing or not the file that was built",
        f"{flashed.with_suffix('.bit')} is of ISA {ISA_VERSION - 1}, this runtime of {ISA_VERSION}",
        "the self-test failed (-11)",
    ]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("XILINX_XRT")
    monkeypatch.setattr(doctor, "probe_pynq", lambda: {"error": "ImportError: no module named pkg_resources"})
    monkeypatch.setattr(surroundings, "overlay_folders", list)
    found = examine(tmp_path / "found.json", selftest=False)
    assert found["selftest"] == {"not_run": "not asked for"}
    assert [problem.partition(":")[0] for problem in found["problems"]] == [
        "XILINX_XRT is not set",
        "PYNQ does not work here (ImportError",
        "no overlay is in edgemoe of any user's home",
    ]


def test_board_without_pynq(machine, tmp_path, monkeypatch):
    """The self-test shows at least that the rest works."""
    versions = surroundings.versions() | {"pynq": None}
    monkeypatch.setattr(surroundings, "versions", lambda: versions)
    monkeypatch.setattr(
        doctor, "run_module", lambda arguments, seconds: {"code": 0, "seconds": 1.0, "output": arguments}
    )
    found = examine(tmp_path / "found.json")
    assert found["pynq"] == {"error": "pynq is not installed"}
    assert found["selftest"]["output"][1:3] == ["--device", "reference"]
    assert "this Python has no pynq" in found["problems"][0]


def test_selftest_that_does_not_end(tmp_path, monkeypatch):
    """What it has said is kept."""
    module = tmp_path / "endless.py"
    module.write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    begin = time.monotonic()
    found = doctor.run_module(["endless"], 3)
    assert found["code"] is None and found["output"] == ["begun"] and time.monotonic() - begin < 30
    bare = {"board": surroundings.board(tmp_path), "versions": surroundings.versions(), "overlays": [], "pynq": {}}
    told = problems({**bare, "system": surroundings.system(tmp_path), "selftest": found})
    assert told[-1] == "the self-test did not end: begun"


def test_pynq_that_ends_its_process(monkeypatch):
    monkeypatch.setattr(doctor, "run_module", lambda *_: {"code": -6, "seconds": 0.1, "output": ["terminate called"]})
    assert doctor.probe_pynq() == {"error": "PYNQ ended its process (-6)", "output": ["terminate called"]}


@pytest.mark.parametrize("noise", ["[XRT] WARNING: closed", "1", "[]", "null", ""])
def test_what_a_library_prints_after_pynq_s_answer(noise, monkeypatch):
    output = ["begun", '{"version": "3.0.1"}', noise]
    monkeypatch.setattr(doctor, "run_module", lambda *_: {"code": 0, "seconds": 0.1, "output": output})
    assert doctor.probe_pynq() == {"version": "3.0.1"}
    monkeypatch.setattr(doctor, "run_module", lambda *_: {"code": 0, "seconds": 0.1, "output": [noise]})
    assert doctor.probe_pynq() == {"error": "PYNQ ended its process (0)", "output": [noise]}


def test_an_overlay_s_file_that_is_not_ours_to_read(flashed, monkeypatch):
    """It is told; the rest is found all the same."""
    bitstream, read = flashed.with_suffix(".bit"), Path.read_bytes

    def closed(path):
        if path == bitstream:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", closed)
    assert surroundings.overlays()[0]["changed_file"] == bitstream.name


def test_nothing_to_test(tmp_path, monkeypatch):
    """As on a board without an overlay: bundles are no part of what was copied."""
    monkeypatch.setattr(surroundings, "overlay_folders", list)
    monkeypatch.setattr(doctor, "bundle_names", tuple)
    found = examine(tmp_path / "found.json")
    assert found["selftest"] == {"not_run": "there is no bundle: name one with --bundle"}


def test_command(edgemoe, tmp_path, monkeypatch):
    """Here, where is no board: the whole, with a self-test on the reference."""
    monkeypatch.setattr(surroundings, "overlay_folders", list)
    out = tmp_path / "found.json"
    lines = edgemoe.ok("boards", "doctor", "--out", out).splitlines()
    found = json.loads(out.read_text())
    assert found["selftest"]["code"] == 0 and found["selftest"]["output"][-1] == "self-test passed"
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert lines[1] == "no board; overlays: none" and lines[-1].startswith(f"{out}: attach it")
    assert any(line.startswith("- this is no board") for line in lines)
    edgemoe("boards", "doctor", "--out", tmp_path).refused(str(tmp_path))


def test_module(tmp_path):
    """As doctor.sh starts it; where the file cannot be written, that is one line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "edgemoe.runtime.doctor", "--no-selftest", "--out"]
    done = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("edgemoe: ") and len(done.stderr.splitlines()) == 1


def test_probe_of_pynq():
    """No device here, and perhaps no pynq: an error, not a crash."""
    found = pynq_probe.probe()
    assert "error" in found or "clocks" in found
