"""What is known beside the tensors: ``config.json`` of a Hugging Face or timm folder, and torchvision's constants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemoe_models.config_fields import LIMITS
from edgemoe_models.importers.facts import NOTHING, Facts
from edgemoe_models.importers.files import Tensors, read_checkpoint
from edgemoe_models.importers.options import ImportRefused, Triple
from edgemoe_models.storage.checks import shown
from edgemoe_models.storage.json_text import JsonError, parse_json

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
_LARGEST = 1 << 24  # bytes of a config
_MOST_SHARDS = 256
#: Hugging Face's ``model_type`` of plain ViTs.
_PLAIN = ("vit", "deit", "dinov2", "dinov2_with_registers", "vit_mae", "vit_msn")
#: Others, and what they have that ours have not.
_TYPES = {
    "swin": "windows of attention, and a pyramid of stages",
    "swinv2": "windows of attention, and a pyramid of stages",
    "beit": "relative position biases of the attention scores",
    "data2vec-vision": "relative position biases of the attention scores",
    "dinov3_vit": "positions that rotate queries and keys (RoPE)",
    "clip": "a LayerNorm before the first block, as CLIP has it",
    "clip_vision_model": "a LayerNorm before the first block, as CLIP has it",
    "siglip": "attention pooling before the head",
    "siglip_vision_model": "attention pooling before the head",
    "ijepa": "no class token and positions that are not learned",
    "yolos": "detection tokens whose positions are added in every block",
    "vit_hybrid": "a patch embedding of more than one convolution, as a hybrid has it",
}
_PYRAMIDS = ("pvt", "pvt_v2", "segformer", "cvt", "levit", "mobilevit", "mobilevitv2", "efficientformer", "poolformer",
             "convnext", "hiera", "resnet", "focalnet", "nat", "dinat", "mgp-str")  # fmt: skip
#: Of timm's names, those of networks whose tensors do not tell it.
_POST_NORM, _ROTARY = re.compile(r"_rpn_|srelpos"), re.compile(r"_rope_|dinov3|eva02")
#: torchvision's VisionTransformer, of which there is but one form.
TORCHVISION = Facts(
    source="torchvision's VisionTransformer",
    usual_heads={768: 12, 1024: 16, 1280: 16},
    eps=1e-6,
    activation="gelu",
    pool="cls",
)


def has_config(folder: Path) -> bool:
    """Whether it is a folder as Hugging Face's hub has them."""
    return (folder / _CONFIG).is_file()


def read_folder(folder: Path, key: str | None = None) -> tuple[Tensors, Facts]:
    """All tensors of a folder with a ``config.json``, and what that says.

    Raises:
        ImportRefused: there are no weights, several that could be meant, or the config is of another network
    """
    facts = read_facts(folder)
    if index := next((folder / name for name in _INDEX if (folder / name).is_file()), None):
        names = sorted({_file_name(name) for name in _object(_json(index).get("weight_map"), index.name).values()})
        if not 1 <= len(names) <= _MOST_SHARDS:
            raise ImportRefused(f"{index.name} must name 1 to {_MOST_SHARDS} files, not {len(names)}")
    else:
        present = [name for name in _WEIGHTS if (folder / name).is_file()]
        found = sorted(path.name for path in folder.glob("*.safetensors"))
        names = present[:1] or found
        if len(names) != 1:
            what = f"several ({', '.join(found)})" if found else "none"
            raise ImportRefused(f"the folder must have weights in {' or '.join(_WEIGHTS)}; it has {what}")
    tensors: Tensors = {}
    for name in names:
        tensors |= read_checkpoint(folder / name, key)[0]
    return tensors, facts


def _file_name(name: object) -> str:
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ImportRefused(f"the index of the weights must name files beside it, not {shown(name)}")
    return name


def read_facts(folder: Path) -> Facts:
    """What the folder's ``config.json`` says, of timm's or of Hugging Face's form; nothing where there is none.

    Raises:
        ImportRefused: it is damaged, or of a network that cannot be imported
    """
    if not has_config(folder):
        return NOTHING
    config = _json(folder / _CONFIG)
    if isinstance(config.get("architecture"), str):
        return _of_timm(config)
    if isinstance(config.get("model_type"), str):
        return _of_hugging_face(config, folder)
    raise ImportRefused(f"its {_CONFIG} has neither 'model_type' (Hugging Face) nor 'architecture' (timm)")


def facts_of_arguments(told: Mapping[str, int | float | str]) -> Facts:
    """What a training script was told: the number of heads, the activation, and a name of timm's that says more."""
    names = [told[key] for key in ("model", "arch", "architecture", "model_name") if isinstance(told.get(key), str)]
    heads = [told[key] for key in ("num_heads", "heads", "n_heads", "num_attention_heads") if key in told]
    known = [number for number in heads if type(number) is int and 1 <= number <= LIMITS["heads"]]
    name = str(names[0]) if names else ""
    activation = told.get("act_layer", told.get("hidden_act"))
    if not name and not known and not isinstance(activation, str):
        return NOTHING
    return Facts(
        source="the file's own arguments",
        heads=known[0] if known else None,
        activation=activation if isinstance(activation, str) else None,
        norm="post" if _POST_NORM.search(name) else None,
        positions="rope" if _ROTARY.search(name) else None,
        notes=tuple(f"the file's own arguments say that this is {shown(name)}" for name in names[:1]),
    )


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise ImportRefused(f"{path.name} has {path.stat().st_size:,} bytes, a config at most {_LARGEST:,}")
    try:
        return _object(parse_json(path.read_text("utf-8")), path.name)
    except (JsonError, UnicodeDecodeError) as error:
        raise ImportRefused(f"{path.name} is damaged: {error}") from None


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImportRefused(f"{name} must hold a JSON object, not {shown(value)}")
    return value


def _number(config: dict[str, Any], name: str, largest: int) -> int | None:
    value = config.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= largest:
        raise ImportRefused(f"{name} in {_CONFIG} must be 1 to {largest}, not {shown(value)}")
    return value


def _of_hugging_face(config: dict[str, Any], folder: Path) -> Facts:
    kind = config["model_type"]
    if kind not in _PLAIN:
        what = _TYPES.get(kind, "a pyramid of stages" if kind in _PYRAMIDS else "")
        reason = f"which has {what}, and ours has not" if what else f"not one of {', '.join(_PLAIN)}"
        raise ImportRefused(f"{_CONFIG} says that this is the network {shown(kind)}, {reason}")
    if config.get("use_swiglu_ffn"):
        raise ImportRefused("the network has what ours has not: a gated MLP (SwiGLU, use_swiglu_ffn)")
    eps = config.get("layer_norm_eps")
    mean, std = _normalization(folder)
    notes = [f"heads, activation and eps are those of {_CONFIG}"]
    if kind == "vit_mae":
        notes.append("the masked autoencoder's encoder sees all patches, and its decoder is left out")
    return Facts(
        source=_CONFIG if mean is None else f"{_CONFIG} and {_PREPROCESSOR}",
        heads=_number(config, "num_attention_heads", LIMITS["heads"]),
        eps=eps if isinstance(eps, float) else None,
        activation=_text(config, "hidden_act"),
        pool="cls",
        norm="pre",
        positions="learned",
        mean=mean,
        std=std,
        image=_image(config.get("image_size")),
        labels=_labels(config.get("id2label")),
        notes=tuple(notes),
    )


def _text(config: dict[str, Any], name: str) -> str | None:
    value = config.get(name)
    return value if isinstance(value, str) else None


def _image(size: Any) -> tuple[int, int] | None:
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if not all(type(value) is int and 1 <= value <= LIMITS["image_height"] for value in (height, width)):
        return None
    return height, width


def _labels(names: object) -> tuple[str, ...]:
    """Of ``{"0": "cat", ...}``, without gaps; () where they are but placeholders."""
    if not isinstance(names, dict) or not all(isinstance(label, str) for label in names.values()):
        return ()
    labels = [names.get(str(number)) for number in range(len(names))]
    if None in labels or all(re.fullmatch(r"LABEL_\d+", str(label)) for label in labels):
        return ()
    return tuple(" ".join(str(label).split())[:256] for label in labels)


def _normalization(folder: Path) -> tuple[Triple | None, Triple | None]:
    """Mean and deviation of the preprocessor; of pixels in 0..1, which is what they are for after rescaling."""
    path = folder / _PREPROCESSOR
    if not path.is_file():
        return None, None
    config = _json(path)
    if config.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return _triple(config.get("image_mean")), _triple(config.get("image_std"))


def _triple(values: object) -> Triple | None:
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(x, int | float) for x in values):
        return None
    return float(values[0]), float(values[1]), float(values[2])


def _of_timm(config: dict[str, Any]) -> Facts:
    name = str(config["architecture"])
    usual = _object(config.get("pretrained_cfg") or {}, "pretrained_cfg")
    arguments = _object(config.get("model_args") or {}, "model_args")
    pool = arguments.get("global_pool", config.get("global_pool"))
    if pool not in (None, "", "token", "avg"):
        raise ImportRefused(f"the network has what ours has not: the pooling {shown(pool)} before the head")
    size = usual.get("input_size")
    labels = config.get("label_names")
    names = labels if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else []
    return Facts(
        source=_CONFIG,
        heads=_number(arguments, "num_heads", LIMITS["heads"]),
        activation=_text(arguments, "act_layer"),
        pool={"token": "cls", "avg": "avg"}.get(pool or ""),
        norm="post" if _POST_NORM.search(name) else "pre",
        positions="rope" if _ROTARY.search(name) else "learned",
        mean=_triple(usual.get("mean")),
        std=_triple(usual.get("std")),
        image=_image(size[1:]) if isinstance(size, list) and len(size) == 3 else None,
        labels=tuple(" ".join(label.split())[:256] for label in names),
        notes=(f"{_CONFIG} says that this is timm's {shown(name)}",),
    )
