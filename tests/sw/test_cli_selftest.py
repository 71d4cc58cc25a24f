"""``edgemoe selftest``; the module that boards have is tests/board/test_flash.py's."""

import dataclasses

import numpy as np

import edgemoe as package
from edgemoe.bundle import Joined
from edgemoe.runtime.reference import ReferenceExecutor
from edgemoe.runtime.selftest import selftest


def test_every_task_of_a_packaged_bundle(edgemoe):
    lines = edgemoe.ok("selftest", "--device", "reference", "--images", 1).splitlines()
    tasks = ["segmentation", "depth", "normals", "edges"]
    assert [line.split(":")[0] for line in lines] == [*tasks, f"tasks {', '.join(tasks)}", "self-test passed"]
    assert all("1 images, equal the integer reference" in line for line in lines[:-1])


def test_on_the_rtl(edgemoe, bundle):
    assert edgemoe.ok("selftest", "--bundle", bundle, "--images", 1).endswith("self-test passed\n")


def test_programs_of_several(joint_bundle):
    """Each of them, on as many pictures as it takes; a bit that differs in one sequence is counted."""
    rows = selftest("reference", joint_bundle, 3)
    assert [row["task"] for row in rows] == [*joint_bundle.tasks, *(str(joint.joined) for joint in joint_bundle.joint)]
    images = {row["task"]: row["images"] for row in rows}
    assert images["depth"] == images["tasks segmentation, depth"] == images["task scene of 3 images"] == 3
    assert images["task depth of 2 images"] == images["task depth of 4 images"] == 4
    assert not any(row["mismatches"] for row in rows)


def test_one_wrong_sequence_fails(joint_bundle, monkeypatch):
    unpack = ReferenceExecutor.unpack

    def wrong(executor, program, target, sequence=0):
        found = unpack(executor, program, target, sequence)
        return found + np.int16((program, sequence) == (Joined(("depth",), 3), 2))

    monkeypatch.setattr(ReferenceExecutor, "unpack", wrong)
    rows = selftest("reference", joint_bundle, 1)
    assert {row["task"]: row["mismatches"] for row in rows if row["mismatches"]} == {
        "task depth of 3 images": joint_bundle.task("depth").output_rows * joint_bundle.task("depth").output_channels
    }


def test_a_difference_fails(edgemoe, bundle, monkeypatch):
    opened = package.open

    def off_by_one(device, *arguments, **options):
        accelerator = opened("reference", *arguments)
        if device == "sim":
            run = accelerator.run
            monkeypatch.setattr(
                accelerator,
                "run",
                lambda image, task: dataclasses.replace(found := run(image, task), raw=found.raw + np.int16(1)),
            )
        return accelerator

    monkeypatch.setattr("edgemoe.runtime.selftest.open_device", off_by_one)
    done = edgemoe("selftest", "--bundle", bundle, "--images", 1)
    done.failed("self-test failed: segmentation, depth, scene on sim differ from the integer reference")
    assert done.out.count("values DIFFER from the integer reference") == 3


def test_refusals(edgemoe, bundle):
    edgemoe("selftest", "--bundle", bundle, "--device", "gpu").refused("device must be one of reference, sim, pynq")
    edgemoe("selftest", "--bundle", "missing.emoe").refused("missing.emoe: there is no such file")
    edgemoe("selftest", "--bundle", bundle, "--port", "x").refused("device sim has no option port")
    edgemoe("selftest", "--bundle", bundle, "--images", 0).refused("'--images'", code=2)
