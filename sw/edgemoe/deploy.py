"""From a trained model to what a device runs: ``edgemoe.quantize`` and ``edgemoe.compile``.

Quantizer and compiler are imported when they are called, so that ``import edgemoe`` stays light on a board.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgemoe.bundle import Bundle
from edgemoe_hw.spec.config import AcceleratorConfig

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgemoe_models.graph.integer_graph import IntegerGraph
    from edgemoe_models.pictures import Resize

__all__ = ["compile", "quantize"]


def quantize(
    checkpoint: Path | str,
    images: Path | str | npt.NDArray[np.uint8] | None = None,
    *,
    count: int = 16,
    resize: Resize = "squeeze",
    expert_bits: Literal[8, 4] = 8,
    notes: Callable[[str], None] | None = None,
) -> IntegerGraph:
    """Quantize a float model without training it: int8 activations, int8 weights, int8 or int4 experts.

    Args:
        checkpoint: float weights as safetensors, as training or ``edgemoe import`` writes them
        images: what calibrates it: a folder of typical pictures, or an array of them, uint8 [B, H, W, 3] of the model's
            size; None: generated scenes, which are right for models of these only: for others there is a warning
        count: as many pictures of the folder are taken, evenly spaced; 8 to 16 are enough
        resize: how they get the model's size: ``crop`` or ``squeeze``
        expert_bits: of the experts' weights
        notes: told once for each kind of thing that is done to files of pictures, and which tensors are clipped on
            pictures that had no part in their range; default: Python warnings

    Returns:
        The integer graph, for ``compile``; ``edgemoe_models.graph.file.write_graph`` writes it to a file

    Raises:
        ValueError: the checkpoint or the pictures cannot be used; the message says which and why
    """
    from edgemoe.workloads import warn_of_scenes
    from edgemoe_models.checkpoint import load_checkpoint
    from edgemoe_models.pictures import Notes
    from edgemoe_models.ptq import quantize as ptq
    from edgemoe_models.ptq.calibrate import calibration_folder

    state, config = load_checkpoint(checkpoint)
    if isinstance(images, (str, Path)):
        images = calibration_folder(images, config, count, resize, None if notes is None else Notes(notes))
    elif images is None:
        warn_of_scenes(Path(checkpoint), count)
        images = ptq.calibration_images(config, count)
    options = ptq.QuantizeOptions(expert_bits=expert_bits)
    return ptq.quantize(state, config, images, options, notes or warnings.warn)


def compile(
    model: IntegerGraph | Path | str,
    config: AcceleratorConfig | Path | str = "pynq-z2",
    *,
    expert_prefetch: Literal["off", "auto"] | int = "auto",
    joint: Literal["auto", "none"] | Sequence[Sequence[str]] = "auto",
    batch: int = 1,
    notes: Callable[[str], None] | None = None,
) -> Bundle:
    """Compile a model for an accelerator.

    Args:
        model: an integer graph, its file, or the name of a packaged model, as ``m3vit-micro-w8a8``; a float checkpoint
            or a preset is quantized first (``quantize`` without images: calibrate a model of photographs yourself)
        config: of the accelerator: one of ``edgemoe.CONFIGS``, its name, a board's name, or a JSON file
        expert_prefetch: experts that are fetched before the gate has chosen: none (``off``), the first so many, or
            those that most images use (``auto``), in each case as far as there is room
        joint: tasks that also get a program together, which ``run`` and ``stream`` then use by themselves: a list of
            lists of names; ``auto``: all tasks, where there are several and they fit; ``none``
        batch: each task also gets programs of 2 to so many images, at most 4; what they fetch is fetched once for all
        notes: told in one line what all tasks lack for a program together, where ``auto`` finds that they do not fit;
            default: a Python warning

    Returns:
        The bundle, for ``edgemoe.open``; its ``save`` writes it

    Raises:
        ValueError: there is no such model, configuration or task, or the model, or a program that was asked for, does
            not fit the accelerator; the message says what is too large and by how much, of the model before anything
            is quantized
    """
    from edgemoe.compiler import CompilerOptions, build_bundle, joint_programs
    from edgemoe.configs import find_config
    from edgemoe.workloads import load_graph

    accelerator = config if isinstance(config, AcceleratorConfig) else find_config(str(config))
    graph = load_graph(str(model), target=accelerator) if isinstance(model, (str, Path)) else model
    options = CompilerOptions(expert_prefetch=expert_prefetch)
    together = joint_programs(
        graph.config, accelerator, options, graph.expert_bits, joint=joint, batch=batch, note=notes or warnings.warn
    )
    return build_bundle(graph, accelerator, options, joint=together)
