"""The live demo below its page: players and messages."""

import json
import threading
import time

import numpy as np
import pytest

import edgemoe
from edgemoe.bundle import Joined
from edgemoe.compiler import build_bundle
from edgemoe.demo.player import Player
from edgemoe.demo.view import about, together
from edgemoe.errors import DeviceError
from edgemoe.reports.legends import NO_LABEL, colour
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.scenes import CLASS_NAMES, PALETTE, SKY
from support.random_graphs import random_graph, small_model
from support.watching import SECONDS, endlessly, newest, playing, stays


@pytest.fixture(scope="module")
def deep_bundle(runtime_bundle):
    """The same with two MoE blocks."""
    return build_bundle(random_graph(small_model(tasks=runtime_bundle.model.tasks, depth=4)), runtime_bundle.config)


#: Devices without cycles; the reference is behind the remote one of these tests, too.
UNCOUNTED = ("reference", "remote")


def test_frames_are_the_devices(open_device, deep_bundle, pictures):
    """The images in a message are those of the reference's predictions, and the figures those of the device."""
    tasks = ("segmentation", "depth", "normals", "edges", "scene")
    with playing(deep_bundle, endlessly(pictures), tasks, open_device) as player, player.watched(lambda: None):
        header, images = newest(player, 2)
        device = player.accelerator.device
    with edgemoe.open("reference", deep_bundle) as reference:
        picture = pictures[header["number"] % len(pictures)]
        wanted = {task: reference.run(picture, task) for task in tasks}
    best = wanted["scene"]
    assert header["runs"]["scene"]["classes"][0] == [f"class {best.label}", pytest.approx(best.scores.max())]
    for task in tasks[:-1]:
        np.testing.assert_array_equal(images[task], colour(wanted[task].kind, wanted[task].values))
    assert list(images) == ["input", *tasks[:-1]] and images["input"].shape == picture.shape
    assert header["fps"] > 0 and 0 < header["latency_p50"] <= header["latency_p90"]
    for task, run in header["runs"].items():
        assert (run["cycles"] is None) == (device in UNCOUNTED) and run["device_ms"] > 0
        assert run["experts"] == {str(block): list(load) for block, load in wanted[task].stats.expert_loads.items()}
        assert list(run["experts"]) == ["1", "3"] and sum(run["experts"]["3"]) == 13 * 2


def test_tasks_in_one_program_are_told(open_device, joint_bundle, pictures):
    """Once for all of them, and beside it what they take one by one; which figures are estimates is said."""
    tasks = ("segmentation", "depth", "edges")
    with playing(joint_bundle, endlessly(pictures), tasks, open_device) as player, player.watched(lambda: None):
        header, _ = newest(player)
        device = player.accelerator.device
    together, edges = header["programs"]
    both = Joined(("segmentation", "depth"))
    estimated = joint_bundle.program(both).estimated_cycles
    alone = sum(joint_bundle.task(name).estimated_cycles for name in both.tasks)
    assert (together["tasks"], together["images"]) == (list(both.tasks), 1)
    assert together["estimated_cycles"] == estimated < alone
    picture = pictures[header["number"] % len(pictures)]
    with edgemoe.open("reference", joint_bundle) as reference:
        loads = [reference.run(picture, name).stats.expert_loads[1] for name in both.tasks]
    assert together["experts"] == {"1": [sum(each) / 2 for each in zip(*loads, strict=True)]}
    assert edges["tasks"] == ["edges"] and edges["text"] == ""
    shown, how = together["cycles"], "measured, and estimated"
    if device in UNCOUNTED:
        assert shown is None and edges["cycles"] is None
        shown, how = estimated, "both estimated"
    else:
        assert edges["cycles"] == header["runs"]["edges"]["cycles"] > 0
    assert together["text"] == (
        f"2 tasks in one program: {shown:,} cycles, {shown / alone:.0%} of {alone:,} one by one ({how})"
    )


def test_frames_in_one_program_are_told(joint_bundle):
    batch = Joined(("scene",), 3)
    alone, estimated = 3 * joint_bundle.task("scene").estimated_cycles, joint_bundle.program(batch).estimated_cycles
    assert together(joint_bundle, batch, None) == (
        f"scene of 3 frames in one program: {estimated:,} cycles, {estimated / alone:.0%} of {alone:,} one by one "
        f"(both estimated)"
    )


def test_classes_have_the_models_own_names(runtime_bundle, pictures):
    labels = ("cat", "dog", "größe")
    tasks = (TaskConfig("scene", "classification", len(labels), labels=labels),)
    bundle = build_bundle(random_graph(small_model(tasks=tasks)), runtime_bundle.config)
    with playing(bundle, endlessly(pictures), ["scene"]) as player, player.watched(lambda: None):
        assert {name for name, _ in newest(player)[0]["runs"]["scene"]["classes"]} == set(labels)


def test_normals_of_the_sky_are_grey(runtime_bundle, pictures):
    """Where the same frame's segmentation sees sky, which has no normals; the label is not known here."""
    tasks = (TaskConfig("segmentation", "segmentation", len(CLASS_NAMES)), TaskConfig("normals", "normals", 3))
    bundle = build_bundle(random_graph(small_model(tasks=tasks)), runtime_bundle.config)
    with playing(bundle, endlessly(pictures), ["normals"]) as player, player.watched(lambda: None):
        assert not (newest(player)[1]["normals"] == NO_LABEL).all(-1).any()
        player.choose(["segmentation", "normals"])
        seen = 0
        while seen < 2:  # which of the pictures comes next is a matter of time, and not all have sky
            if "segmentation" not in (images := newest(player, player.count)[1]):
                continue
            sky = (images["segmentation"] == PALETTE[SKY]).all(-1)
            assert not sky.all()
            np.testing.assert_array_equal((images["normals"] == NO_LABEL).all(-1), sky)
            seen += sky.any()


def test_plays_only_while_watched(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player:
        assert stays(0, lambda: player.count)
        with player.watched(lambda: None):
            newest(player)
            player.pause(True)
            time.sleep(0.2)
            paused = player.count
            assert stays(paused, lambda: player.count) and player.state["paused"]
            player.pause(False)
            newest(player, paused)
        time.sleep(0.2)
        assert stays(player.count, lambda: player.count)


def test_tasks_switch_while_it_plays(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player, player.watched(lambda: None):
        assert list(newest(player)[1]) == ["input", "segmentation", "depth"]
        player.choose(["edges", "depth"])
        assert player.state["tasks"] == ("depth", "edges")
        assert list(newest(player, player.count + 6)[1]) == ["input", "depth", "edges"]
        for wrong, message in (([], "at least one task of segmentation, "), (["x"], "has no task 'x'")):
            with pytest.raises(edgemoe.BundleError, match=message):
                player.choose(wrong)


def test_failed_frames_and_the_end_are_told(runtime_bundle, pictures):
    def source():
        yield pictures[0]
        yield pictures[0].astype(float)
        yield pictures[1]
        raise ValueError("the camera is gone")

    changes = []
    with playing(runtime_bundle, source()) as player, player.watched(lambda: changes.append(dict(player.state))):
        end = time.monotonic() + SECONDS
        while not player.state["ended"] and time.monotonic() < end:
            time.sleep(0.01)
    assert player.count == 2 and player.state["failures"] == 2 and player.state["error"] == "the camera is gone"
    assert any(state["failures"] == 1 and "image must be uint8" in state["error"] for state in changes)


def test_errors_are_told_until_all_is_well_again(runtime_bundle, pictures):
    """An unreadable picture is no failed frame; a hundred frames later nobody needs to hear of it."""

    def source():
        yield ValueError("b.png: not a readable image")
        yield from endlessly(pictures)

    changes = []
    with (
        playing(runtime_bundle, source(), ["scene"]) as player,
        player.watched(lambda: changes.append(dict(player.state))),
    ):
        newest(player, 100)
    assert {(state["error"], state["failures"]) for state in changes} == {("", 0), ("b.png: not a readable image", 0)}
    assert changes[-1]["error"] == ""


def test_power_and_clock_are_the_boards(runtime_bundle, pictures):
    """Energy is mean power over frames a second; without sensors there is neither."""
    platform = NullPlatform(runtime_bundle.config)
    platform.clock_mhz, readings = 96.97, iter([DeviceError("no answer")])
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        with Player(accelerator, endlessly(pictures), 50, ["depth"]) as player, player.watched(lambda: None):
            header, _ = newest(player, 3)
            assert not player.measures_power and header["watts"] is None and header["millijoules"] is None
        assert about(accelerator, "x")["clock_mhz"] == 96.97 != runtime_bundle.config.assumed_clock_mhz

        def power():
            if (error := next(readings, None)) is not None:
                raise error
            return {"PL": 2.0, "PS": 1.5}

        platform.power = power
        with Player(accelerator, endlessly(pictures), 50, ["depth"]) as player, player.watched(lambda: None):
            assert player.measures_power
            while not (header := newest(player, player.count)[0])["watts"] or not header["fps"]:
                pass
            assert header["watts"] == 3.5 and header["millijoules"] == pytest.approx(3500 / header["fps"])
    assert not [thread for thread in threading.enumerate() if thread.name == "edgemoe power"]


def test_close_ends_a_slow_source(runtime_bundle, pictures):
    closed = []

    def source():
        try:
            yield from endlessly(pictures)
        finally:
            closed.append(True)

    with edgemoe.open("reference", runtime_bundle) as accelerator:
        player = Player(accelerator, source(), 0.01, ["depth"])  # the next frame is due in 100 s
        with player.watched(lambda: None):
            newest(player)
            begin = time.monotonic()
            player.close()
            player.close()
        assert time.monotonic() - begin < 2 and closed == [True]
        accelerator.run(pictures[0], "depth")  # the accelerator is free again


def test_legends(runtime_bundle):
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        found = about(accelerator, "x")
    tasks = {task["name"]: task for task in found["tasks"]}
    assert tasks["segmentation"]["legend"][1] == ("class 1", "#6e9646") and len(tasks["segmentation"]["legend"]) == 5
    assert tasks["depth"]["ramp"][0] == ("0 m", "#fde725") and tasks["depth"]["ramp"][-1] == ("10 m", "#440154")
    assert tasks["normals"]["legend"][0] == ("right", "#ff8080") and tasks["scene"]["legend"] == []
    assert tasks["normals"]["legend"][-1] == ("sky, or no label", "#808080")
    assert tasks["edges"]["legend"] == [("edge", "#ffffff"), ("no edge", "#000000")]
    assert found["visits"] == 13 * 2 and tasks["depth"]["estimated_cycles"] > 0
    json.dumps(found)
