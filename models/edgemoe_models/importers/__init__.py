"""Checkpoints of other projects as edgemoe's float checkpoints: timm, Hugging Face, torchvision, ONNX, M3ViT, ...

``edgemoe import FILE_OR_FOLDER --out OUT.safetensors``; docs/importers.md says what is read.
"""

from edgemoe_models.importers.detect import FORMATS, detect, import_checkpoint
from edgemoe_models.importers.files import save_imported
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused

__all__ = [
    "FORMATS",
    "ImportOptions",
    "ImportRefused",
    "Imported",
    "detect",
    "import_checkpoint",
    "save_imported",
]
