import subprocess
import sys

import numpy as np
import pytest

from edgemoe_models.datasets.arrays import load_split
from edgemoe_models.datasets.scenes import (
    CLASS_NAMES,
    GROUND,
    MAX_DEPTH,
    PALETTE,
    ROAD,
    SKY,
    SPLITS,
    WALL,
    generate_scene,
)

SEEDS = range(24)


@pytest.fixture(scope="module")
def many():
    return [generate_scene(seed, 64, 128) for seed in SEEDS]


def world_points(scene):
    """Each pixel's point in the world frame, from its depth and the camera alone. [H, W, 3]"""
    directions = scene.camera.directions(*scene.depth.shape).reshape(*scene.depth.shape, 3)
    return scene.camera.origin + directions * scene.depth[..., None]


def test_equal_seeds_give_equal_scenes_and_others_do_not(many):
    again = generate_scene(3, 64, 128)
    for field in ("image", "segmentation", "depth", "normals", "edges"):
        assert np.array_equal(getattr(again, field), getattr(many[3], field))
    assert not np.array_equal(many[3].image, many[4].image)


def test_shapes_types_and_ranges(many):
    for scene in many:
        assert (scene.image.shape, scene.image.dtype) == ((64, 128, 3), np.uint8)
        assert (scene.segmentation.shape, scene.segmentation.dtype) == ((64, 128), np.uint8)
        assert (scene.depth.shape, scene.depth.dtype) == ((64, 128), np.float32)
        assert (scene.normals.shape, scene.normals.dtype) == ((64, 128, 3), np.float32)
        assert (scene.edges.shape, scene.edges.dtype) == ((64, 128), np.bool_)
        sky = scene.segmentation == SKY
        assert np.all(scene.depth[sky] == MAX_DEPTH)
        assert np.all((scene.depth[~sky] > 0) & (scene.depth[~sky] < MAX_DEPTH))


def test_every_class_is_common(many):
    counts = np.bincount(np.stack([scene.segmentation for scene in many]).ravel(), minlength=len(CLASS_NAMES))
    assert len(CLASS_NAMES) == len(PALETTE) >= 7
    assert counts.min() > 0.01 * counts.sum()


def test_ground_and_road_lie_in_their_plane(many):
    for scene in many:
        flat = np.isin(scene.segmentation, (GROUND, ROAD))
        assert np.abs(world_points(scene)[flat][:, 2]).max(initial=0) < 1e-4
        down = scene.camera.axes() @ np.array([0, 0, 1], np.float32)
        assert np.allclose(scene.normals[flat], down, atol=1e-5)


def test_everything_else_stands_above_the_ground(many):
    for scene in many:
        above = ~np.isin(scene.segmentation, (GROUND, ROAD, SKY))
        assert world_points(scene)[above][:, 2].min() > -1e-4


def test_normals_are_unit_face_the_camera_and_match_the_depth(many):
    matched = total = averted = 0
    for scene in many:
        solid = scene.segmentation != SKY
        assert np.allclose(np.linalg.norm(scene.normals[solid], axis=1), 1, atol=1e-4)
        assert np.all(scene.normals[~solid] == 0)
        rays = scene.camera.directions(64, 128) @ scene.camera.axes().T
        averted += ((scene.normals.reshape(-1, 3) * rays).sum(1)[solid.ravel()] > 1e-3).sum()
        points = world_points(scene).reshape(-1, 3) @ scene.camera.axes().T
        points = points.reshape(64, 128, 3)
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        estimate = np.cross(down, across)
        estimate /= np.maximum(np.linalg.norm(estimate, axis=2, keepdims=True), 1e-12)
        plane = np.isin(scene.segmentation, (GROUND, WALL))
        near = scene.edges | np.roll(scene.edges, 1, 0) | np.roll(scene.edges, 1, 1)
        inner = (plane & ~near)[1:-1, 1:-1]
        cosine = (estimate * scene.normals[1:-1, 1:-1]).sum(2)[inner]
        matched, total = matched + (cosine > 0.999).sum(), total + cosine.size
    assert matched == total > 10000
    assert averted <= 2e-5 * len(many) * 64 * 128  # float32 rays that graze a rim


def test_edges_are_where_classes_or_instances_change(many):
    for scene in many:
        classes = scene.segmentation.astype(int)
        right = np.zeros((64, 128), bool)
        right[:, :-1] = classes[:, :-1] != classes[:, 1:]
        right[:-1] |= classes[:-1] != classes[1:]
        assert np.all(scene.edges[right])
        assert not scene.edges[-1, -1]


def test_the_same_world_at_every_size():
    small, large = generate_scene(5, 32, 64), generate_scene(5, 96, 192)  # 3:1, so pixel centres coincide
    assert np.array_equal(small.segmentation, large.segmentation[1::3, 1::3])
    assert np.allclose(small.depth, large.depth[1::3, 1::3], atol=1e-4)


def test_shadows_darken_the_ground(many):
    dark = 0
    for scene in many:
        brightness = scene.image[scene.segmentation == GROUND].mean(1)
        dark += brightness.size > 200 and np.percentile(brightness, 5) < 0.6 * np.percentile(brightness, 95)
    assert dark > len(many) // 3


def test_splits_do_not_overlap():
    seeds = [set(split) if len(split) < 20000 else split for split in SPLITS.values()]
    for i, first in enumerate(seeds):
        for second in seeds[i + 1 :]:
            assert not any(seed in first for seed in second if isinstance(second, set))
            assert not any(seed in second for seed in first if isinstance(first, set))


def test_cached_split_equals_scenes(tmp_path, many):
    for _ in range(2):
        data = load_split(tmp_path, "val", 3, 64, 128, ["segmentation", "depth", "normals", "edges"])
        for index in range(3):
            assert np.array_equal(data["image"][index], many[index].image)
            assert np.array_equal(data["edges"][index], many[index].edges)
            assert np.abs(data["depth"][index] / 1000 - many[index].depth).max() < 6e-4
            assert np.abs(data["normals"][index] / 127 - many[index].normals).max() < 5e-3


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="seed must be at least 0, not -1"):
        generate_scene(-1, 8, 8)
    with pytest.raises(ValueError, match=r"height and width must be at least 1, not \(0, 8\)"):
        generate_scene(0, 0, 8)
    with pytest.raises(ValueError, match="split must be one of .*, not 'test'"):
        load_split(tmp_path, "test", 1, 8, 8, [])
    with pytest.raises(ValueError, match=r"labels must be among .*, not \['colour'\]"):
        load_split(tmp_path, "val", 1, 8, 8, ["colour"])
    with pytest.raises(ValueError, match=r"count of val must be in 1\.\.10000, not 0"):
        load_split(tmp_path, "val", 0, 8, 8, [])


def test_imports_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import edgemoe_models, edgemoe_models.config\n"
        "assert 'numpy' not in sys.modules\n"
        "import edgemoe_models.datasets.scenes, edgemoe_models.evaluation.metrics, edgemoe_models.datasets\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
