"""What ``run`` promises several threads, after an interruption, and a process that leaves without closing."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import edgemoe
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe_hw.spec import regs


def test_runs_from_several_threads(runtime_bundle, pictures, expected):
    """One after the other, each with its own picture's bits."""
    found = {}
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        threads = [
            threading.Thread(target=lambda n=n: found.update({n: accelerator.run(pictures[n], "depth").raw}))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(found[number], expected(picture, "depth"))


def test_run_that_is_interrupted(runtime_bundle, pictures):
    """Ctrl-C in run: the next one begins with a reset, for the program may still run."""
    platform = NullPlatform(runtime_bundle.config)
    driver = Driver(platform, runtime_bundle)
    control, written, write = regs.find("CONTROL").offset, [], platform.write

    def interrupted(offset, value):
        if offset == control:
            written.append(value)
            if len(written) == 1:
                raise KeyboardInterrupt
        write(offset, value)

    platform.write = interrupted
    with Accelerator(driver) as accelerator:
        with pytest.raises(KeyboardInterrupt):
            accelerator.run(pictures[0], "depth")
        accelerator.run(pictures[0], "depth")
    assert written[:3] == [1, 2, 1]  # start; soft reset, start


LEAVES = """
import itertools, sys
import numpy as np
import edgemoe
accelerator = edgemoe.open("reference", {bundle!r})
stream = accelerator.stream(itertools.cycle(np.load({images!r})), "depth")
print(next(stream).number)
sys.exit(3)
"""


def test_process_that_leaves_everything_open(runtime_bundle, pictures, tmp_path):
    """Its threads neither keep it nor complain."""
    bundle, images = str(tmp_path / "x.emoe"), str(tmp_path / "images.npy")
    runtime_bundle.save(bundle)
    np.save(images, pictures)
    done = subprocess.run(
        [sys.executable, "-c", LEAVES.format(bundle=bundle, images=images)],
        timeout=60,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "0\n", "")
