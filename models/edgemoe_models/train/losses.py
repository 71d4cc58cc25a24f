"""One loss for each kind of task. All leave out pixels without a label (``edgemoe_models.datasets.arrays``).

M3ViT's code (VITA-Group/M3ViT, which follows Vandenhende et al., TPAMI 2021) takes cross-entropy, L1 for depth, L1
between unit vectors for normals (weight 10) and cross-entropy with 0.95 of the weight on edges (weight 50). Here:

- depth: L1 that is quadratic below half a metre, where an exact L1 pulls as hard at the sensor's noise as at errors;
- normals: 1 - cosine, which depends on the angle alone, as the metric does, and not on the camera's axes;
- edges: 4 to 1 in place of 19 to 1, since F1 is measured at a fixed threshold, where M3ViT's measure seeks the best;
- no weights of tasks: with these losses all four stay within a factor of four of each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemoe_models.config import DEPTH_SCALE, TaskConfig
from edgemoe_models.datasets.arrays import IGNORE, MILLIMETRES, NORMAL_STEPS


def class_weights(classes: npt.NDArray[np.uint8], count: int, power: float) -> Tensor:
    """Median-frequency weights (Eigen and Fergus 2015) to a power, float32 [count]; 1 on average over the pixels.

    A class's frequency is its share of the pixels of the pictures that have it. One that never occurs weighs 1.

    Args:
        classes: [pictures, H, W], ``IGNORE`` without a label
        count: of classes
        power: 1: as published; less: tempered; 0: all 1
    """
    pixels = np.stack([np.bincount(one.ravel(), minlength=256)[:count] for one in classes])  # [pictures, count]
    around = (pixels > 0) * pixels.sum(1, keepdims=True)
    frequency = pixels.sum(0) / np.maximum(around.sum(0), 1)
    occurs = frequency > 0
    weights = np.ones(count)
    weights[occurs] = (np.median(frequency[occurs]) / frequency[occurs]) ** power
    weights *= pixels.sum() / (weights * pixels.sum(0)).sum()
    return torch.from_numpy(weights.astype(np.float32))


def task_loss(
    output: Tensor,
    label: Tensor,
    task: TaskConfig,
    far: float = DEPTH_SCALE,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Loss of one task, a scalar; 0 when no pixel has a label.

    Args:
        output: [B, channels, H, W], or [B, channels] of a classification
        label: as stored by ``edgemoe_models.datasets.arrays``; of a classification [B], or shares [B, channels]
        far: metres at which the data set's depth ends; errors count in shares of it
        weights: of the classes of segmentation [channels]; None: all 1
        smoothing: share of a classification's label that all classes get (Szegedy et al. 2016)
    """
    if task.kind == "classification":
        return F.cross_entropy(output, label, label_smoothing=smoothing)
    if task.kind == "segmentation":
        classes = label.long()
        total = F.cross_entropy(output, classes, weight=weights, ignore_index=IGNORE, reduction="sum")
        return total / (classes != IGNORE).sum().clamp(min=1)
    if task.kind == "depth":  # of 10 m: a metre of error weighs about as much as a nat, the sky a quarter
        metres = label.float() / MILLIMETRES
        error = F.smooth_l1_loss(output[:, 0] * task.output_scale, metres, beta=0.5, reduction="none")
        weight = torch.where(metres < far, 1.0, 0.25) * (metres > 0)
        return (error * weight).sum() / weight.sum().clamp(min=1) * (DEPTH_SCALE / far)
    if task.kind == "normals":
        normals = label.float().permute(0, 3, 1, 2) / NORMAL_STEPS
        valid = normals.square().sum(1) > 0
        return ((1 - F.cosine_similarity(output, normals)) * valid).sum() / valid.sum().clamp(min=1)
    return F.binary_cross_entropy_with_logits(output[:, 0], label.float(), pos_weight=output.new_full((), 4.0))


def distillation_loss(output: Tensor, target: Tensor, task: TaskConfig, far: float = DEPTH_SCALE) -> Tensor:
    """How far a model's outputs are from another's, a scalar: 0 where they are equal (Hinton et al. 2015).

    Of classes and edges the Kullback-Leibler divergence, in nats; of depth and normals what ``task_loss`` takes. All
    pixels count, also those without a label, and no class more than another: what it weighs is in what the other model
    has learnt.

    Args:
        output, target: [B, channels, H, W], or [B, channels] of a classification; ``target`` without gradient
        far: as of ``task_loss``
    """
    if task.kind in ("classification", "segmentation"):
        known, found = target.log_softmax(1), output.log_softmax(1)
        return F.kl_div(found, known, reduction="none", log_target=True).sum(1).mean()
    if task.kind == "depth":
        known, found = target * task.output_scale, output * task.output_scale
        weight = torch.where(known < far, 1.0, 0.25)
        error = F.smooth_l1_loss(found, known, beta=0.5, reduction="none")
        return (error * weight).sum() / weight.sum() * (DEPTH_SCALE / far)
    if task.kind == "normals":
        return (1 - F.cosine_similarity(output, target)).mean()
    known = target.sigmoid()
    found_nats, least_nats = (F.binary_cross_entropy_with_logits(logits, known) for logits in (output, target))
    return found_nats - least_nats
