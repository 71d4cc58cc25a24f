"""Pictures of the generated scenes that ``edgemoe sim`` draws, of a model that has not learnt them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
from PIL import Image

from edgemoe.jobs.scene_run import simulate
from edgemoe.reports.legends import NO_LABEL
from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.scenes import SPLITS, generate_scene
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import decode_output, postprocess
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_state
from support.small_models import to_train

MODEL = to_train(TaskConfig("normals", "normals", 3), TaskConfig("segmentation", "segmentation", 4, cells=4))


class Simulation:
    """Gives the reference's outputs in the simulation's place."""

    def __init__(self, graph) -> None:
        self._graph = graph

    def run(self, image, task, expected, progress):
        outputs = reference.run(self._graph, image, task)
        return SimpleNamespace(outputs=outputs, stats={}, comparison=SimpleNamespace(mismatches=0))


def test_the_sky_has_no_normals_without_labels_too(tmp_path):
    """The class that this model sees most is called sky: there its normals are grey."""
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    graph = quantize(random_state(MODEL, 0), MODEL, images)
    scene = generate_scene(SPLITS["demo"].start, 16, 32)
    output = decode_output(graph, "segmentation", reference.run(graph, scene.image, "segmentation"))
    classes = postprocess(MODEL, "segmentation", output)
    most = int(np.bincount(classes.ravel()).argmax())
    labels = tuple("sky" if number == most else f"thing {number}" for number in range(4))
    tasks = (MODEL.tasks[0], dataclasses.replace(MODEL.tasks[1], labels=labels))
    graph = dataclasses.replace(graph, config=dataclasses.replace(MODEL, tasks=tasks))
    simulate(Simulation(graph), graph, 1, tmp_path, lambda what, share: None, trained=False)
    picture = np.asarray(Image.open(tmp_path / "small-normals-0.png"))
    left = picture[18 : 18 + 192, 6 + 12 * 32 + 6 : 6 + 2 * 12 * 32 + 6]  # the prediction, beside the input
    assert ((left == NO_LABEL).all(-1).reshape(16, 12, 32, 12).all((1, 3)) >= (classes == most)).all()
    assert (picture[18 + 192 :] == NO_LABEL).all(-1).sum() >= 81  # in the legend, too
    assert (tmp_path / "small-segmentation-0.png").is_file()
