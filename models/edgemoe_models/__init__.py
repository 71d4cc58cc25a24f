"""Models of edgemoe: float M3ViT, synthetic data, training, export.

Importing this package needs neither torch nor NumPy; ``model`` and ``train`` import torch, ``scenes`` and
``metrics`` need NumPy only.
"""

from edgemoe_models.config import DEPTH_SCALE, PRESETS, TASK_KINDS, ModelConfig, TaskConfig

__all__ = ["DEPTH_SCALE", "PRESETS", "TASK_KINDS", "ModelConfig", "TaskConfig"]
