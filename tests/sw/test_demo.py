"""The live demo below its page: sources, player, messages, server."""

import http.client
import json
import os
import re
import shutil
import threading
import time
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice

import numpy as np
import pytest
import uvicorn
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_websocket

import edgemoe
from edgemoe.compiler import build_bundle
from edgemoe.demo.player import Player
from edgemoe.demo.server import application, listen, url_of
from edgemoe.demo.sources import endless
from edgemoe.demo.view import about, decode
from edgemoe.errors import DeviceError
from edgemoe.reports.pictures import colour
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe_models.pictures import Notes
from support.random_graphs import random_graph, small_model

SECONDS = 20


def connect(address, **options):
    return connect_websocket(address, max_queue=None, **options)  # else close waits for frames that nobody reads


def endlessly(pictures):
    while True:
        yield from pictures


def newest(player, after=0, seconds=SECONDS):
    """Header and images of a frame after the first ``after`` ones."""
    end = time.monotonic() + seconds
    while player.count <= after:
        assert time.monotonic() < end, f"no frame; {player.state}"
        time.sleep(0.005)
    return decode(player.message)


def stays(value, read):
    """Whether ``read()`` is still ``value`` when frames in flight have had time to arrive."""
    time.sleep(0.3)
    return read() == value


open_reference = partial(edgemoe.open, "reference")


@contextmanager
def playing(bundle, pictures, tasks=("segmentation", "depth"), open_device=open_reference):
    with open_device(bundle, resize="crop") as accelerator, Player(accelerator, pictures, 500, tasks) as player:
        yield player


@pytest.fixture(scope="module")
def deep_bundle(runtime_bundle):
    """The same with two MoE blocks."""
    return build_bundle(random_graph(small_model(tasks=runtime_bundle.model.tasks, depth=4)), runtime_bundle.config)


@contextmanager
def serving(player):
    """The page's address while a server runs in a thread."""
    with listen("127.0.0.1", 0) as listening:
        app = application(player, about(player._accelerator, "a test", player.measures_power))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


# Sources


def test_scenes_drift_and_repeat(runtime_bundle):
    model = runtime_bundle.model
    first, again = (list(islice(endless("scenes", model), 80)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert {frame.shape for frame in first} == {(12, 16, 3)} and first[0].dtype == np.uint8
    steps = np.abs(np.diff(np.array(first, int), axis=0)).mean((1, 2, 3))
    assert 0 < steps[:74].max() < 30 < steps[74]  # a small step within a scene, another scene after 75 frames


def test_folders_of_any_images_begin_again(runtime_bundle, tmp_path):
    Image.new("RGBA", (40, 15), (10, 20, 30, 255)).save(tmp_path / "b.png")
    Image.new("L", (16, 24), 7).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    said = []
    source = endless(str(tmp_path), runtime_bundle.model, notes=Notes(said.append))
    shapes = [(frame.shape, tuple(frame[0, 0])) for frame in islice(source, 4)]
    assert shapes == 2 * [((12, 16, 3), (7, 7, 7)), ((12, 16, 3), (10, 20, 30))]
    assert len(said) == 2 and "grey" in said[0] and "a.png" in said[0] and "transparent" in said[1]


def test_videos_begin_again(runtime_bundle, tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "x.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for level in (0, 120, 240):
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    means = [frame.mean() for frame in islice(endless(str(tmp_path / "x.avi"), runtime_bundle.model), 5)]
    np.testing.assert_allclose(means, [0, 120, 240, 0, 120], atol=4)


def test_bad_sources(runtime_bundle, tmp_path):
    for source, message in ((tmp_path / "nothing.mp4", "there is no such file or folder"), (tmp_path, "no pictures")):
        with pytest.raises(ValueError, match=message):
            endless(str(source), runtime_bundle.model)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="broken.png: not a readable image"):
        endless(str(broken), runtime_bundle.model)


def test_an_unreadable_image_does_not_end_its_folder(runtime_bundle, tmp_path):
    for name, level in (("a.png", 10), ("c.png", 20)):
        Image.new("RGB", (16, 12), (level, 0, 0)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    one, error, two, again, _ = islice(endless(str(tmp_path), runtime_bundle.model), 5)
    assert [picture[0, 0, 0] for picture in (one, two, again)] == [10, 20, 10]
    assert isinstance(error, ValueError) and "b.png: not a readable image" in str(error)


def test_nothing_in_a_folder_ends_it(runtime_bundle, tmp_path):
    """Files that vanish, that are no files, that may not be read; and a folder that is empty for a while."""
    good, bad, gone = tmp_path / "d.png", tmp_path / "b.png", tmp_path / "c.png"
    Image.new("RGB", (16, 12), (10, 0, 0)).save(good)
    gone.write_bytes(good.read_bytes())
    bad.write_bytes(b"no picture")
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "e.png").symlink_to("f.png")
    (tmp_path / "f.png").symlink_to("e.png")
    (tmp_path / "g.png").mkdir()
    source = endless(str(tmp_path), runtime_bundle.model)
    assert "b.png: not a readable image" in str(next(source))
    gone.unlink()
    assert "c.png: there is no such file" in str(next(source)) and next(source)[0, 0, 0] == 10
    os.mkfifo(gone)  # no longer a regular file when it is its turn, below
    bad.unlink()
    assert next(source)[0, 0, 0] == 10
    held = good.rename(tmp_path / "d.held")
    assert all("no pictures in this folder" in str(next(source)) for _ in range(3))
    shutil.rmtree(tmp_path / "g.png")
    folder = tmp_path.rename(tmp_path.with_name("moved"))
    assert "No such file or directory" in str(next(source))
    folder.rename(tmp_path)
    held.rename(good)
    assert next(source)[0, 0, 0] == 10


def test_a_picture_that_vanishes_may_come_back(runtime_bundle, tmp_path):
    Image.new("RGB", (16, 12), (10, 0, 0)).save(tmp_path / "a.png")
    source = endless(str(tmp_path / "a.png"), runtime_bundle.model)
    assert next(source)[0, 0, 0] == 10
    held = (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert "a.png: there is no such file" in str(next(source))
    held.rename(tmp_path / "a.png")
    assert next(source)[0, 0, 0] == 10


# Player and messages


def test_frames_are_the_devices(open_device, deep_bundle, pictures):
    """The images in a message are those of the reference's predictions, and the figures those of the device."""
    tasks = ("segmentation", "depth", "normals", "edges", "scene")
    with playing(deep_bundle, endlessly(pictures), tasks, open_device) as player, player.watched(lambda: None):
        header, images = newest(player, 2)
        device = player._accelerator.device
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
        assert (run["cycles"] is None) == (device == "reference") and run["device_ms"] > 0
        assert run["experts"] == {str(block): list(load) for block, load in wanted[task].stats.expert_loads.items()}
        assert list(run["experts"]) == ["1", "3"] and sum(run["experts"]["3"]) == 13 * 2


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
    assert found["visits"] == 13 * 2 and tasks["depth"]["estimated_cycles"] > 0
    json.dumps(found)


# Server


def get(url, path, headers=None):
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=SECONDS)
    with closing(connection):
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()


def test_page_has_all_that_it_needs(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player, serving(player) as url:
        status, headers, page = get(url, "/")
        assert status == 200 and headers["content-security-policy"] == "default-src 'self'"
        files = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert sorted(files) == ["/static/app.js", "/static/icon.svg", "/static/style.css"]
        for file in files:
            status, _, text = get(url, file)
            assert status == 200 and not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
        assert get(url, "/static/../server.py")[0] == get(url, "/nothing")[0] == 404


def test_live_frames_and_commands(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player, serving(player) as url:
        address = url.replace("http", "ws") + "live"
        with connect(address) as viewer, connect(address) as other:
            assert json.loads(viewer.recv(SECONDS))["type"] == "about"
            assert json.loads(viewer.recv(SECONDS)) == {
                "type": "state",
                "tasks": ["segmentation", "depth"],
                "paused": False,
                "ended": False,
                "failures": 0,
                "error": "",
            }
            first, second = (decode(viewer.recv(SECONDS))[0]["number"] for _ in range(2))
            assert second > first
            for task in ("normals", "segmentation", "depth"):
                viewer.send(json.dumps({"task": task, "on": task == "normals"}))
            while list(decode(message)[1] if isinstance(message := viewer.recv(SECONDS), bytes) else ()) != [
                "input",
                "normals",
            ]:
                pass
            for wrong, answer in (
                ('{"task": "x", "on": true}', "this bundle has no task 'x'"),
                ("7", "this is no"),
                ("{", "this is no command"),
                ('{"task": "depth"}', "this is no command"),
                ('{"task": "normals", "on": false}', "choose at least one task"),
            ):
                viewer.send(wrong)
                while not isinstance(message := viewer.recv(SECONDS), str):
                    pass
                assert json.loads(message)["message"].startswith(answer)
            texts = (
                json.loads(message) for message in iter(lambda: other.recv(SECONDS), None) if isinstance(message, str)
            )
            assert next(text for text in texts if text.get("tasks") == ["normals"])["type"] == "state"
        time.sleep(0.2)
        assert player._listeners == []


def test_other_web_pages_are_refused(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player, serving(player) as url:
        address = url.replace("http", "ws") + "live"
        with pytest.raises(InvalidStatus, match="403"), connect(address, origin="http://elsewhere.example"):
            pass
        with connect(address, origin=url.rstrip("/")) as viewer:
            viewer.recv(SECONDS)
        assert get(url, "/", {"Host": "elsewhere.example"})[0] == 400
