"""ViTs of the usual sizes, of one block: their widths, heads, tokens and classes, which is what limits them."""

from edgemoe_models.config import ModelConfig, TaskConfig


def vit(name: str, dim: int, height: int = 224, width: int = 224, *, patch: int = 16, depth: int = 1) -> ModelConfig:
    """A ViT for classification into 1000 classes, with heads of 64 channels."""
    task = TaskConfig("classification", "classification", 1000)
    return ModelConfig(name, height, width, patch, dim, depth, dim // 64, 4 * dim, 0, 0, 0, (task,))


SIZES = {
    model.name: model
    for model in (
        vit("vit-tiny-256", 192, 256, 256),
        vit("vit-tiny-240x320", 192, 240, 320),
        vit("vit-tiny-384", 192, 384, 384),
        vit("vit-small-224", 384),
        vit("vit-small-14-224", 384, patch=14),
        vit("vit-small-384", 384, 384, 384),
        vit("vit-base-224", 768),
        vit("vit-base-14-224", 768, patch=14),
    )
}
#: The smallest sizes that each variant is for; what is smaller fits too.
LARGEST = {
    "pynq-z2-large": ("vit-tiny-240x320", "vit-small-224"),
    "ultra96v2-large": ("vit-tiny-384", "vit-small-14-224"),
    "kv260-large": ("vit-small-384", "vit-base-14-224"),
    "zcu104-large": ("vit-small-384", "vit-base-14-224"),
    "zcu102-large": ("vit-small-384", "vit-base-14-224"),
}
