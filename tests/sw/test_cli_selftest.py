"""``edgemoe selftest``; the module that boards have is tests/board/test_flash.py's."""

import dataclasses

import numpy as np

import edgemoe as package


def test_every_task_of_a_packaged_bundle(edgemoe):
    lines = edgemoe.ok("selftest", "--device", "reference", "--images", 1).splitlines()
    assert [line.split(":")[0] for line in lines] == ["segmentation", "depth", "normals", "edges", "self-test passed"]
    assert all("1 images, equal the integer reference" in line for line in lines[:-1])


def test_on_the_rtl(edgemoe, bundle):
    assert edgemoe.ok("selftest", "--bundle", bundle, "--images", 1).endswith("self-test passed\n")


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
