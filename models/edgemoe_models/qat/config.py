"""Options of quantization-aware training. Needs no PyTorch."""

from __future__ import annotations

import dataclasses

from edgemoe_models.train.config import AUGMENTATIONS, DEVICES, CommonOptions, option, scheduled_rate

__all__ = ["QatOptions"]


@dataclasses.dataclass(frozen=True)
class QatOptions(CommonOptions):
    """How to fine-tune the float checkpoint ``weights``.

    Raises:
        ValueError: a field is out of range.
    """

    weights: str = option("", "float checkpoint")
    expert_bits: int = option(8, "of the experts' weights, 8 or 4")
    scales: str = option("multiplier", "multiplier or power-of-two")
    steps: int = option(1000, "length of the run")
    minutes: float = option(0.0, "of training time; when not 0, they end the run and its schedule in place of steps")
    batch: int = option(16, "pictures of each task in a step")
    learning_rate: float = option(1e-4, "highest, after the warm-up")
    warmup: int = option(20, "steps of it")
    balance: float = option(0.001, "weight of the balance loss")
    distill: float = option(0.0, "share of the loss that compares with the float model's outputs, not with labels")
    ema: float = option(0.0, "decay of the weights' moving average, which is then what is kept; 0: none")
    augment: str = option("light", f"how pictures are changed, one of {', '.join(AUGMENTATIONS)}")
    zoom: float = option(2.0, "largest scale of the strong augmentation")
    mix: float = option(0.0, "share of pictures that get a rectangle of another one, of the strong augmentation")
    class_balance: float = option(0.0, "power of the classes' median-frequency weights; 0: none, 1: as published")
    seed: int = option(1, "of batches and noise")
    data: str = option("scenes", "data set with the model's tasks, as of edgemoe train")
    data_root: str = option("", "folder of the data set")
    train_scenes: int = option(20000, "pictures to train on, at most")
    val_scenes: int = option(128, "held-out pictures to measure at the end, at most")
    save_minutes: float = option(5.0, "of training time between checkpoints")
    device: str = option("auto", f"one of {', '.join(DEVICES)}; auto: a GPU if there is one")

    def __post_init__(self) -> None:
        if self.expert_bits not in (4, 8):
            raise ValueError(f"expert-bits must be 4 or 8, not {self.expert_bits!r}")
        if self.scales not in ("multiplier", "power-of-two"):
            raise ValueError(f"scales must be multiplier or power-of-two, not {self.scales!r}")
        for field in ("steps", "batch", "train_scenes", "val_scenes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field.replace('_', '-')} must be at least 1, not {getattr(self, field)!r}")
        if self.minutes < 0:
            raise ValueError(f"minutes must be at least 0, not {self.minutes!r}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning-rate must be positive, not {self.learning_rate!r}")
        if not 0 <= self.distill <= 1:
            raise ValueError(f"distill must be in 0..1, not {self.distill!r}")
        self.check_common()
        if self.class_balance < 0:
            raise ValueError(f"class-balance must be at least 0, not {self.class_balance!r}")
        _ = self.data_set  # refused here if there is none

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step, see ``scheduled_rate``."""
        return scheduled_rate(self.learning_rate, self.warmup, step, progress)
