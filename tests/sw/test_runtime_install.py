"""A board has NumPy, pynq and edgemoe; nothing that builds, trains, simulates or reads pictures."""

import os
import subprocess
import sys

import numpy as np

from edgemoe.extras import install_command
from edgemoe.studies.overhead import measure_overhead

BOARD = """
import sys
INSTALLED = {installed!r}

class OnlyThese:  # whatever else this machine has
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in INSTALLED | sys.stdlib_module_names or name.startswith("edgemoe.compiler"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

started = {{name.partition(".")[0] for name in sys.modules}}
sys.meta_path.insert(0, OnlyThese())
import numpy as np
import edgemoe

image = np.load({image!r})
with edgemoe.open("reference", {bundle!r}) as accelerator:
    np.save({output!r}, accelerator.run(image, "depth").raw)
    accelerator.run({image!r}, "depth")
    frames = list(accelerator.stream(np.stack([image] * 3), ["segmentation", "scene"]))
    assert [list(frame.predictions) for frame in frames] == [["segmentation", "scene"]] * 3
from edgemoe.runtime.platforms.null import NullPlatform
with edgemoe.open(NullPlatform(accelerator.bundle.config), {bundle!r}) as accelerator:  # the driver itself
    accelerator.run(image, "depth")
from edgemoe.runtime.selftest import main
assert main(["--device", "reference", "--bundle", {bundle!r}]) == 0
for device in ("sim", "pynq", "serial"):
    try:
        edgemoe.open(device, {bundle!r})
    except edgemoe.DeviceError as error:
        print(error)
imported = {{name.partition(".")[0] for name, module in sys.modules.items()
            if getattr(module, "__spec__", None)}}  # NumPy makes some that have none
print(sorted(imported - started - sys.stdlib_module_names))
"""
INSTALLED = {"numpy", "edgemoe", "edgemoe_hw", "edgemoe_models"}


def test_runs_where_nothing_else_is_installed(runtime_bundle, pictures, expected, tmp_path):
    bundle, image, output = (str(tmp_path / name) for name in ("x.emoe", "image.npy", "raw.npy"))
    runtime_bundle.save(bundle)
    np.save(image, pictures[0])
    done = subprocess.run(
        [sys.executable, "-c", BOARD.format(installed=INSTALLED, bundle=bundle, image=image, output=output)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(output), expected(pictures[0], "depth"))
    versions, *tasks, verdict, simulator, board, line, loaded = done.stdout.splitlines()
    assert versions.startswith("edgemoe ") and f", numpy {np.__version__}, " in versions
    assert len(tasks) == 5 and verdict == "self-test passed"
    assert simulator.startswith(f"device sim needs the simulator; install it with: {install_command('sim')} (No")
    assert board.startswith("device pynq needs a PYNQ board; install there: pip install pynq (No module")
    assert line.startswith(f"a serial line needs pyserial (No module named 'serial'): {install_command('serial')}")
    assert loaded == str(sorted(INSTALLED))  # nothing else, by whatever name


def test_overhead(runtime_bundle):
    """Every step of every task is measured; the limit for m3vit-micro is checked where machines are quiet."""
    result = measure_overhead(runtime_bundle, 5)
    assert set(result["tasks"]) == set(runtime_bundle.tasks)
    for values in result["tasks"].values():
        assert 0 < values["p50_ms"] <= values["p90_ms"] < 100
        assert values["p50_ms"] >= 0.5 * sum(values[f"{step}_ms"] for step in ("pack", "execute", "unpack", "predict"))
