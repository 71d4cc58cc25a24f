"""``run`` with lists: programs of several tasks or images where the bundle has them, and each result as by itself."""

import dataclasses

import numpy as np
import pytest

import edgemoe
from edgemoe import BundleError, DeviceError
from edgemoe.bundle import Joined
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe.runtime.reference import ReferenceExecutor

ALL = ("segmentation", "depth", "normals", "edges", "scene")


class Watched(ReferenceExecutor):
    """The reference, which keeps what it was told to run."""

    def __init__(self, bundle):
        super().__init__(bundle)
        self.programs = []

    def execute(self, program, source, target, cancel=None, *, first=0):
        self.programs.append((program, first))
        return super().execute(program, source, target, cancel, first=first)


def test_all_tasks_of_an_image(open_device, joint_bundle, pictures, expected):
    """Every device: the bits of each task by itself, in the order that was asked for."""
    with open_device(joint_bundle) as accelerator:
        found = accelerator.run(pictures[0], ["scene", *ALL])
        assert tuple(found) == ("scene", "segmentation", "depth", "normals", "edges")
        for task, prediction in found.items():
            np.testing.assert_array_equal(prediction.raw, expected(pictures[0], task))
            assert prediction.task == task and prediction.stats.shared == 5
        alone = [accelerator.run(pictures[0], task) for task in ALL]
    of_all = found["depth"].stats
    assert all(each.stats.shared == 1 for each in alone)
    for block, loads in of_all.expert_loads.items():
        assert list(loads) == np.sum([each.stats.expert_loads[block] for each in alone], 0).tolist()
    if of_all.cycles is None:
        assert of_all.cycles_each is None
    else:
        assert 0 < of_all.cycles < sum(each.stats.cycles for each in alone)
        assert of_all.cycles_each == of_all.cycles / 5
        assert of_all == dataclasses.replace(found["scene"].stats, host_seconds=of_all.host_seconds)
    assert of_all.device_seconds_each == of_all.device_seconds / 5


def test_a_batch_of_images(open_device, joint_bundle, pictures, expected):
    with open_device(joint_bundle) as accelerator:
        found = accelerator.run(list(pictures[:5]), "depth")
    assert [prediction.stats.shared for prediction in found] in ([1, 4, 4, 4, 4], [2, 2, 3, 3, 3], [3, 3, 3, 2, 2])
    for picture, prediction in zip(pictures, found, strict=False):
        np.testing.assert_array_equal(prediction.raw, expected(picture, "depth"))


def test_what_is_run_together(joint_bundle, pictures, expected):
    """The exact program, else those of fewer tasks, else single ones; of lists of images, each image's own."""
    for tasks, images, programs in (
        ("depth", 1, [("depth", 0)]),
        (["depth"], 1, [("depth", 0)]),
        (ALL, 1, [(Joined(ALL), 0)]),
        (["depth", "segmentation"], 1, [(Joined(("segmentation", "depth")), 0)]),
        (["edges", "depth", "segmentation"], 1, [(Joined(("segmentation", "depth")), 0), ("edges", 0)]),
        (["depth", "edges"], 1, [("depth", 0), ("edges", 0)]),
        ("depth", 3, [(Joined(("depth",), 3), 0)]),
        (["depth", "scene"], 2, [(Joined(("depth",), 2), 0), (Joined(("scene",), 2), 0)]),
        (["edges"], 2, [("edges", 0), ("edges", 1)]),
    ):
        executor = Watched(joint_bundle)
        with Accelerator(executor) as accelerator:
            given = pictures[0] if images == 1 else list(pictures[:images])
            found = accelerator.run(given, tasks)
        assert executor.programs == programs
        results = found if images > 1 else [found]
        assert len(results) == images
        for picture, result in zip(pictures, results, strict=False):
            names = [tasks] if isinstance(tasks, str) else tasks
            of_each = [result] if isinstance(tasks, str) else list(result.values())
            assert [prediction.task for prediction in of_each] == list(names)
            for prediction in of_each:
                np.testing.assert_array_equal(prediction.raw, expected(picture, prediction.task))


def test_a_bundle_without_such_programs(runtime_bundle, pictures, expected):
    """The same results one by one."""
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        found = accelerator.run(tuple(pictures[:2]), list(ALL))
    for picture, of_image in zip(pictures, found, strict=False):
        assert tuple(of_image) == ALL and {each.stats.shared for each in of_image.values()} == {1}
        for task, prediction in of_image.items():
            np.testing.assert_array_equal(prediction.raw, expected(picture, task))


def test_lists_that_are_refused(joint_bundle, pictures):
    with edgemoe.open("reference", joint_bundle) as accelerator:
        with pytest.raises(ValueError, match="there are no images to run"):
            accelerator.run([], "depth")
        with pytest.raises(BundleError, match="this bundle has no task 'fog'"):
            accelerator.run(pictures[0], ["depth", "fog"])
        with pytest.raises(ValueError, match="image must be"):
            accelerator.run([pictures[0], np.zeros((3, 3))], "depth")
        assert accelerator.run(pictures[0], ["depth"])["depth"].task == "depth"  # it goes on


def test_images_lie_in_a_row(joint_bundle, pictures):
    """At the registers: one buffer for a program's images, its size that of all of them."""
    platform = NullPlatform(joint_bundle.config)
    driver = Driver(platform, joint_bundle)
    size, source = joint_bundle.input_bytes, driver.memory.inputs[0]
    written, write = [], platform.write
    from edgemoe_hw.spec import regs

    names = {regs.find(name).offset: name for name in ("BASE_INPUT", "SIZE_INPUT", "PROGRAM_ADDR")}
    platform.write = lambda offset, value: (
        offset in names and written.append((names[offset], value)),
        write(offset, value),
    )
    with Accelerator(driver) as accelerator:
        accelerator.run(list(pictures[:2]), ["depth", "edges"])
        depth = driver.memory.programs[Joined(("depth",), 2)].physical_address
        edges = driver.memory.programs["edges"].physical_address
    at = source.physical_address
    assert [value for name, value in written if name == "PROGRAM_ADDR"] == [depth, edges, edges]
    assert [value for name, value in written if name == "BASE_INPUT"] == [at, at, at + size]
    assert [value for name, value in written if name == "SIZE_INPUT"] == [2 * size, size, size]
    assert source.array.size == 4 * size


def test_a_failed_program_of_several(joint_bundle, pictures):
    """Its error names it; the next call runs."""

    class Broken(ReferenceExecutor):
        def execute(self, program, *arguments, **options):
            if program == Joined(("depth",), 2):
                raise DeviceError(f"{program} failed")
            return super().execute(program, *arguments, **options)

    with Accelerator(Broken(joint_bundle)) as accelerator:
        with pytest.raises(DeviceError, match="task depth of 2 images failed"):
            accelerator.run(list(pictures[:2]), "depth")
        assert len(accelerator.run(list(pictures[:2]), "edges")) == 2
