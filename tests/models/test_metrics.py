import numpy as np
import pytest

from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.evaluation.metrics import (
    BoundaryMetrics,
    DepthMetrics,
    EdgeMetrics,
    NormalsMetrics,
    SegmentationMetrics,
    TaskMetrics,
)


def test_segmentation_by_hand():
    metrics = SegmentationMetrics(3)
    metrics.update(np.array([0, 0, 1]), np.array([0, 1, 1]))
    metrics.update(np.array([1]), np.array([0]))
    assert np.array_equal(metrics.confusion, [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert metrics.iou[0] == metrics.iou[1] == 1 / 3
    assert np.isnan(metrics.iou[2])
    assert metrics.result() == {"miou": pytest.approx(1 / 3), "pixel_accuracy": 0.5}


def test_segmentation_accumulates_like_one_update():
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, 5, (2, 7, 8, 9))
    one, many = SegmentationMetrics(5), SegmentationMetrics(5)
    one.update(prediction, label)
    for p, q in zip(prediction, label, strict=True):
        many.update(p, q)
    assert one.result() == many.result()


def test_segmentation_refusals():
    metrics = SegmentationMetrics(3)
    with pytest.raises(ValueError, match=r"label must be classes in 0\.\.2, not \(0, 3\)"):
        metrics.update(np.array([0, 1]), np.array([0, 3]))
    with pytest.raises(ValueError, match=r"prediction must be of the label's shape \(2,\), not \(1,\)"):
        metrics.update(np.array([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="classes must be at least 2, not 1"):
        SegmentationMetrics(1)
    assert np.isnan(metrics.result()["miou"])


def test_depth_by_hand():
    metrics = DepthMetrics()
    metrics.update(np.array([1.0, 5.0]), np.array([2.0, 4.0]))
    metrics.update(np.array([9.0, 1.0]), np.array([1.0, 1.0]), np.array([False, True]))
    result = metrics.result()
    assert result["rmse"] == pytest.approx(np.sqrt(2 / 3))
    assert result["abs_rel"] == pytest.approx(0.25)


def test_normals_by_hand():
    metrics = NormalsMetrics()
    label = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 0]], float)
    metrics.update(np.array([[0, 0, 5], [3, 0, 0], [1, 0, 0]], float), label)
    assert metrics.result()["mean_angle"] == pytest.approx(45)


def test_edges_by_hand():
    metrics = EdgeMetrics()
    metrics.update(np.array([True, True, False, False]), np.array([True, False, True, False]))
    assert metrics.result() == {"f1": 0.5, "precision": 0.5, "recall": 0.5}


def test_task_metrics_of_perfect_outputs():
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 8, (2, 4, 4)).astype(np.uint8)
    segmentation = TaskMetrics(TaskConfig("s", "segmentation", 8))
    segmentation.update(np.eye(8)[classes].transpose(0, 3, 1, 2), classes)
    assert segmentation.result() == {"miou": 1.0, "pixel_accuracy": 1.0}
    depth = TaskMetrics(TaskConfig("d", "depth", 1))
    metres = np.array([[[2.0, 10.0]]])  # the second pixel is sky, which does not count
    depth.update(np.array([[[[0.2, 0.1]]]]), metres)
    assert depth.result()["rmse"] == pytest.approx(0)
    assert depth.metrics.count == 1
    normals = TaskMetrics(TaskConfig("n", "normals", 3))
    label = rng.standard_normal((2, 4, 4, 3))
    normals.update(2 * label.transpose(0, 3, 1, 2), label)
    assert normals.result()["mean_angle"] == pytest.approx(0, abs=1e-4)
    edges = TaskMetrics(TaskConfig("e", "edges", 1))
    edges.update(np.array([[[[1.0, -1.0]]]]), np.array([[[True, False]]]))
    assert edges.result()["f1"] == 1
    with pytest.raises(ValueError, match="task must be dense to be measured on scenes, not 'classification'"):
        TaskMetrics(TaskConfig("c", "classification", 10))


def test_class_accuracy_is_of_labelled_pixels():
    metrics = SegmentationMetrics(3)
    metrics.update(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    assert metrics.class_accuracy[:2].tolist() == [2 / 3, 1.0] and np.isnan(metrics.class_accuracy[2])


def columns(border, width=12, height=8):
    """Two classes side by side; the second begins at column ``border``."""
    return (np.arange(width) >= border).astype(np.uint8)[None, None].repeat(height, 1)


@pytest.mark.parametrize(("tolerance", "expected"), [(0, 0.0), (1, 0.0), (2, 1.0), (3, 1.0)])
def test_boundaries_are_met_within_the_tolerance(tolerance, expected):
    """The border is two columns aside: of each class, one column of pixels."""
    metrics = BoundaryMetrics(2, tolerance)
    metrics.update(columns(7), columns(5))
    assert metrics.result() == {"boundary_f1": pytest.approx(expected)}


def test_boundaries_by_hand():
    metrics = BoundaryMetrics(2, 0)
    prediction = columns(5)
    prediction[0, :4] = 0  # half of the border is missing; a row of the second class makes another
    metrics.update(prediction, columns(5))
    # class 0: found in column 4 of rows 4..7 and row 3's columns 5..11; class 1: column 5 of rows 4..7, row 4's 6..11
    precision, recall = (4 / 11, 4 / 10), (4 / 8, 4 / 8)
    expected = np.mean([2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)])
    assert metrics.result()["boundary_f1"] == pytest.approx(expected)


def test_boundaries_without_labels_do_not_count():
    label = columns(5)
    label[0, :, 4] = IGNORE
    metrics = BoundaryMetrics(2, 1)
    metrics.update(columns(9), label)
    assert np.isnan(metrics.result()["boundary_f1"])
    metrics.update(columns(5), columns(5))
    assert metrics.result() == {"boundary_f1": 1.0}
    with pytest.raises(ValueError, match="tolerance must be at least 0 pixels, not -1"):
        BoundaryMetrics(2, -1)


def test_details_of_segmentation():
    task = TaskConfig("s", "segmentation", 2)
    metrics = TaskMetrics(task, details=True)
    label = columns(5)
    metrics.update(np.stack([label == 0, label == 1], 1).astype(np.float32), label)
    assert metrics.result() == dict.fromkeys(
        ["miou", "pixel_accuracy", "class_accuracy", "boundary_f1", "iou_0", "iou_1"], 1.0
    )
