"""Position embeddings: resampled as timm does for every change of the grid, and said."""

import re

import numpy as np
import pytest

from edgemoe_models.importers import ImportOptions, ImportRefused
from edgemoe_models.importers.positions import fitted, image_size, resample

DIM = 3


def embeddings(patches: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((1 + patches, DIM)).astype(np.float32)


def by_torch(values: np.ndarray, source: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """As timm's ``resample_abs_pos_embed``: the class token's stays, the others as a picture."""
    torch = pytest.importorskip("torch", reason="torch is not installed: resampling is not compared with it")
    picture = torch.from_numpy(values[1:]).double().reshape(1, *source, DIM).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(picture, grid, mode="bicubic", antialias=True)
    return np.concatenate([values[:1], resized.permute(0, 2, 3, 1).reshape(-1, DIM).numpy()])


@pytest.mark.parametrize(
    ("source", "grid", "trained"),
    [
        ((14, 14), (7, 28), None),  # as many patches, in another form
        ((14, 14), (28, 7), None),
        ((4, 4), (2, 8), None),
        ((14, 14), (6, 6), None),
        ((7, 7), (9, 11), None),
        ((14, 14), (24, 24), None),
        ((7, 7), (3, 5), None),
        ((8, 16), (16, 8), "8x16"),  # no square
        ((8, 16), (6, 20), "8 x 16"),
        ((2, 8), (4, 4), "2X8"),  # a square number of patches that are none
        ((2, 8), (3, 9), "2×8"),
        ((3, 5), (1, 1), "3x5"),
    ],
)
def test_resampling_equals_torch(source, grid, trained):
    values = embeddings(source[0] * source[1])
    found, said = fitted(values, grid, ImportOptions(trained_grid=trained))
    np.testing.assert_allclose(found, by_torch(values, source, grid), atol=1e-6)
    assert f"resampled from {source[0]} x {source[1]} to {grid[0]} x {grid[1]} patches" in said
    assert said.endswith("(as given)" if trained else "(--trained-grid)")
    assert found.dtype == np.float32 and not np.array_equal(found[1:], values[1 : len(found)])


@pytest.mark.parametrize(
    ("patches", "grid", "trained"),
    [(196, (14, 14), None), (128, (8, 16), None), (15, (3, 5), None), (196, (7, 28), "7x28"), (128, (4, 32), "4x32")],
)
def test_the_same_grid_is_left_alone(patches, grid, trained):
    values = embeddings(patches)
    found, said = fitted(values, grid, ImportOptions(trained_grid=trained))
    assert np.array_equal(found, values) and said.startswith(f"position embeddings of {grid[0]} x {grid[1]} patches (")


def test_along_one_axis(rng):
    values = rng.standard_normal((5, 2))
    assert np.allclose(resample(values, 5), values)
    assert np.allclose(resample(np.ones((7, 2)), 3), 1) and resample(values, 9).shape == (9, 2)


@pytest.mark.parametrize(
    ("patches", "grid", "trained", "message"),
    [
        (
            126,
            (7, 28),
            None,
            "126 position embeddings make no square, so they cannot be resampled to 7 x 28",
        ),
        (196, (7, 28), "14x15", "--trained-grid 14x15 has 210 patches, the checkpoint 196"),
        (196, (7, 28), "14", "--trained-grid must be ROWSxCOLUMNS, as 14x14, not '14'"),
        (196, (7, 28), "-14x-14", "--trained-grid must be ROWSxCOLUMNS"),
    ],
)
def test_refusals(patches, grid, trained, message):
    with pytest.raises(ImportRefused, match=re.escape(message)):
        fitted(embeddings(patches), grid, ImportOptions(trained_grid=trained))


@pytest.mark.parametrize(
    ("options", "patches", "expected"),
    [
        ({}, 196, (224, 224)),
        ({"trained_grid": "7x28"}, 196, (112, 448)),
        ({"trained_grid": "3x5"}, 15, (48, 80)),
        ({"image_height": 112, "image_width": 448}, 196, (112, 448)),
    ],
)
def test_image_size(options, patches, expected):
    assert image_size(ImportOptions(**options), patches, 16) == expected


@pytest.mark.parametrize(
    ("options", "patches", "message"),
    [
        ({}, 15, "15 position embeddings besides the class token's have no obvious arrangement: give --trained-grid"),
        ({"image_width": 448}, 196, "--image-height and --image-width go together"),
        ({"image_height": 120, "image_width": 448}, 196, "--image-height must be a multiple of the patches' 16 pixels"),
        (
            {"image_height": 112, "image_width": 0},
            196,
            "--image-width must be 1 to 8192, not 0",
        ),
    ],
)
def test_image_sizes_that_are_refused(options, patches, message):
    with pytest.raises(ImportRefused, match=re.escape(message)):
        image_size(ImportOptions(**options), patches, 16)
