"""What the float model does with the calibration images: activations by name, and of which image each row is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models import float_reference
from edgemoe_models.config import ModelConfig
from edgemoe_models.exact.sums import Doubles
from edgemoe_models.float_reference import Floats
from edgemoe_models.ptq.expert_use import ExpertUse, share_of_images

__all__ = ["FEWEST_TO_JUDGE", "Observation", "observe"]

#: Of fewer calibration images than this none are held out to judge ranges with.
FEWEST_TO_JUDGE = 4

Halves = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Observation:
    """Activations of all images and tasks.

    Attributes:
        rows: by trace name, tasks and images joined, with ``.experts.{e}.input`` added
        second_half: by the same names, for each row whether its image is of the second half of the images
        use: of experts
    """

    rows: dict[str, Doubles]
    second_half: dict[str, Halves]
    use: ExpertUse

    def halves(self, *names: str) -> Halves | None:
        """``second_half`` of these activations, joined; none if there are too few images or rows to judge with."""
        found = np.concatenate([self.second_half[name] for name in names])
        return found if found.any() and not found.all() else None


def observe(state: dict[str, Floats], config: ModelConfig, images: npt.NDArray[np.uint8]) -> Observation:
    """Run the float model on images [B, H, W, 3] for every task."""
    parts: dict[str, list[Doubles]] = {}
    halves: dict[str, list[Halves]] = {}
    use: ExpertUse = {}
    count = len(images)
    first = -(-count // 2) if count >= FEWEST_TO_JUDGE else count  # images of the first half

    def add(name: str, rows: Doubles, image: npt.NDArray[Any]) -> None:
        parts.setdefault(name, []).append(rows)
        halves.setdefault(name, []).append(image >= first)

    for task in config.tasks:
        seen: dict[str, Any] = {}
        float_reference.forward(state, config, images, task.name, seen)
        for name, value in seen.items():
            if name.endswith(".queues"):
                block = name.removesuffix(".queues")
                use[f"{block}.{task.name}"] = share_of_images(value, count, config.num_tokens)
                for e, queue in enumerate(value):
                    add(f"{block}.experts.{e}.input", seen[f"{block}.norm2"][queue], queue // config.num_tokens)
            elif ".experts." in name:
                queue = seen[f"{name.partition('.experts.')[0]}.queues"][int(name.split(".")[3])]
                add(name, value, queue // config.num_tokens)
            elif not name.endswith(".gate_scores"):
                add(name, value, np.arange(len(value)) * count // len(value))
    rows = {name: np.concatenate(values) for name, values in parts.items()}
    return Observation(rows, {name: np.concatenate(values) for name, values in halves.items()}, use)
