"""Training of a model: ``python -m edgemoe_models.train`` or ``edgemoe-train``; ``--help`` lists the options.

A step takes one batch of each task, each through that task's gate and head, sums the losses' gradients and updates
the weights once, as M3ViT does (Liang et al., NeurIPS 2022, arXiv 2210.14793). Modules:

    config      the options, and the model's shape that follows from them
    data        batches: arrays of a data set, augmented
    losses      one loss for each kind of task
    trainer     model, optimizer, checkpoint
    processes   one process, or several of torchrun
    logs        CSV and TensorBoard
    command     the loop and the command line
"""

from edgemoe_models.train.command import main, run
from edgemoe_models.train.config import TrainConfig
from edgemoe_models.train.data import augment, load_scenes, pixels
from edgemoe_models.train.losses import task_loss
from edgemoe_models.train.processes import Processes
from edgemoe_models.train.trainer import (
    Trainer,
    evaluate,
    export,
    load_weights,
    score,
    take_weights,
)

__all__ = [
    "Processes",
    "TrainConfig",
    "Trainer",
    "augment",
    "evaluate",
    "export",
    "load_scenes",
    "load_weights",
    "main",
    "pixels",
    "run",
    "score",
    "take_weights",
    "task_loss",
]
