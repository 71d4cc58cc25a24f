"""Checkpoints of other projects as edgemoe's float checkpoints: timm / DeiT, M3ViT, Edge-MoE. NumPy only.

``python -m edgemoe_models.importers FILE_OR_FOLDER --to OUT.safetensors``; docs/importers.md says what is read.
"""

from edgemoe_models.importers.common import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.detect import FORMATS, detect, import_checkpoint

__all__ = ["FORMATS", "ImportOptions", "ImportRefused", "Imported", "detect", "import_checkpoint"]
