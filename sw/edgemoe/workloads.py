"""Named models as integer graphs: trained ones from the package's weights, seeded random ones elsewhere.

``m3vit-micro``            float weights, quantized when they are asked for (PTQ W8A8)
``m3vit-micro-w8a8``       the integer graph of quantization-aware training, as it is in the package
``m3vit-micro-w4a8``       the same with 4-bit expert weights
``m3vit-tiny-camvid``      an integer graph (PTQ W8A8) and float weights, which only a checkout has; with ``-w8a8`` and
                           ``-w4a8`` the graphs of its quantization-aware training
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import edgemoe_models
from edgemoe.fitting import require_fit
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models import random_weights
from edgemoe_models.checkpoint import read_shape
from edgemoe_models.config import PRESETS
from edgemoe_models.graph.file import graph_bytes, is_graph_file, read_graph
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.pictures import Notes
from edgemoe_models.ptq import quantize
from edgemoe_models.storage import tensor_file
from edgemoe_models.storage.cache import cache_root, cached
from edgemoe_models.storage.file_kind import CHECKPOINT_KEY, GRAPH_KEY, describe
from edgemoe_models.storage.json_text import JsonError, parse_json
from edgemoe_models.storage.shards import whole_name
from edgemoe_models.trained_weights import CHECKOUT_ONLY, WEIGHTS_HOME, is_checkout_only, weights_path

__all__ = [
    "CalibrationWarning",
    "QAT_PRECISIONS",
    "QatFiles",
    "best_model",
    "float_weights",
    "load_graph",
    "model_label",
    "named_graphs",
    "precision_of",
    "preset_graph",
    "ptq_file",
    "qat_files",
    "read_metadata",
    "short_path",
    "warn_of_scenes",
    "weights_path",
]

#: Suffix of a quantization-aware trained model's name, and its precision.
QAT_PRECISIONS = {"w8a8": "QAT W8A8", "w4a8": "QAT W4A8 experts"}
_RANDOM_CALIBRATION = 8  # images that random weights are calibrated with
_GRAPH = ".graph.safetensors"


class CalibrationWarning(UserWarning):
    """A model is calibrated on pictures that are not of its kind."""


@dataclass(frozen=True)
class QatFiles:
    """Files of one quantization-aware training: latent weights, exported graph, and the command that makes them."""

    precision: str
    latent: Path
    graph: Path
    command: str


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file.

    Raises:
        ValueError: it cannot be read; the message names it
    """
    try:
        return tensor_file.read_metadata(path)
    except (tensor_file.TensorFileError, OSError) as error:
        found = describe(path, GRAPH_KEY) or f"is not a readable safetensors file ({error})"
        raise ValueError(f"{path} {found}") from None


def qat_files(weights: Path, suffix: str, data: str = "scenes") -> QatFiles:
    """Where the quantization-aware trained forms of float weights are: beside them; ``data`` is what they train on."""
    stem = weights.with_name(f"{_stem(weights)}-{suffix}")
    command = (
        f"edgemoe qat --model {short_path(weights)} --expert-bits {4 if suffix == 'w4a8' else 8} "
        + ("" if data == "scenes" else f"--data {data} --data-root FOLDER ")
        + f"--out {short_path(weights.parent)}"
    )
    return QatFiles(
        QAT_PRECISIONS[suffix],
        stem.with_name(f"{stem.name}.safetensors"),
        stem.with_name(f"{stem.name}{_GRAPH}"),
        command,
    )


def ptq_file(weights: Path) -> Path:
    """Where the integer graph is that was made of float weights without training, if it is kept: beside them."""
    return weights.with_name(f"{_stem(weights)}{_GRAPH}")


def _stem(weights: Path) -> str:
    """Name of a weights file, or of the parts of which it is the first, without its ending."""
    return whole_name(weights).removesuffix(".safetensors")


def short_path(path: Path) -> Path:
    """As seen from the current folder, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def named_graphs() -> dict[str, Path]:
    """Integer graphs in the package, by model name; those of ``CHECKOUT_ONLY`` where it is a checkout."""
    return {path.name.removesuffix(_GRAPH): path for path in sorted(weights_path("any").parent.glob(f"*{_GRAPH}"))}


def float_weights(model: str) -> Path:
    """The float checkpoint of a trained preset, or the file that ``model`` names.

    Raises:
        ValueError: there is neither
    """
    path = weights_path(model) if model in (*PRESETS, *CHECKOUT_ONLY) else Path(model)
    if path.is_file():
        return path
    if model in CHECKOUT_ONLY:
        raise ValueError(_only_in_a_checkout(model, f"{model}-00001-of-*.safetensors and its other parts"))
    if model in PRESETS:
        raise ValueError(
            f"{model} has no trained weights, so it has no accuracy; train it with: "
            f"edgemoe train --preset {model}, and give the file's name"
        )
    trained = ", ".join(name for name in (*PRESETS, *CHECKOUT_ONLY) if weights_path(name).is_file())
    raise ValueError(f"model must be a trained preset ({trained}) or a float checkpoint, not {model!r}")


def _only_in_a_checkout(model: str, files: str) -> str:
    return (
        f"{model} is too large for the wheel and the source distribution: {files} lie in the repository, in "
        f"{WEIGHTS_HOME}; copy from there and give the file as --model"
    )


def best_model(preset: str = "m3vit-micro") -> str:
    """A preset's quantization-aware trained W8A8 form if the package has it, else the preset, which is PTQ."""
    return name if (name := f"{preset}-w8a8") in named_graphs() else preset


def precision_of(model: str) -> str:
    """The precision of what ``load_graph`` gives for a name."""
    if model in named_graphs():
        return QAT_PRECISIONS.get(model.rpartition("-")[2], "PTQ W8A8")
    return "PTQ W8A8" if model in PRESETS else "integer graph"


def model_label(model: str) -> str:
    """A short name of what ``--model`` was given, for files: the name itself, or a file's stem."""
    return whole_name(model).removesuffix(".safetensors").removesuffix(".graph")


def _cache_key(name: str, weights: Path, seed: int) -> str:
    """Changes with the weights and with every source that may take part in quantizing them."""
    digest = hashlib.sha256(f"{name} {seed} {_RANDOM_CALIBRATION}".encode())
    for source in sorted(Path(edgemoe_models.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    if weights.is_file():
        digest.update(weights.read_bytes())
    return digest.hexdigest()[:12]


def preset_graph(name: str, cache: Path | None = None, seed: int = 0, expert_bits: int = 8) -> IntegerGraph:
    """A preset quantized with calibration scenes; kept in ``cache`` (default: ``graphs`` in the cache folder).

    Raises:
        ValueError: there is no such preset
    """
    if name not in PRESETS:
        names = ", ".join([*PRESETS, *named_graphs()])
        raise ValueError(f"model must be one of {names}, or a checkpoint or graph file, not {name!r}")
    weights = weights_path(name)
    folder = cache_root() / "graphs" if cache is None else cache
    path = folder / f"{name}-w{expert_bits}-{_cache_key(name, weights, seed)}{_GRAPH}"
    model, options = PRESETS[name], quantize.QuantizeOptions(expert_bits=expert_bits)

    def make() -> IntegerGraph:
        if weights.is_file():
            return quantize.quantize_checkpoint(weights, options=options)
        images = quantize.calibration_images(model, _RANDOM_CALIBRATION)
        return quantize.quantize(random_weights.random_state(model, seed), model, images, options)

    return cached(path, read_graph, make, graph_bytes)


def load_graph(
    model: str,
    cache: Path | None = None,
    seed: int = 0,
    expert_bits: int = 8,
    target: AcceleratorConfig | None = None,
    images: Path | None = None,
    count: int = 16,
    notes: Notes | None = None,
) -> IntegerGraph:
    """A preset's or a packaged graph's name, an integer graph's file or a float checkpoint.

    A float checkpoint of anything but generated scenes that is calibrated on these is a ``CalibrationWarning``.

    Args:
        model: name or file
        cache: folder for what is quantized from a preset
        seed: of a preset's weights, where it has no trained ones
        expert_bits: 8 or 4, for what is quantized here; a graph keeps its own
        target: configuration that the model must fit; said before anything is quantized
        images: folder of pictures that calibrate a float checkpoint; None: generated scenes
        count: as many of them at most, evenly spaced
        notes: told how they were converted

    Raises:
        ValueError: it is none of these, its contents are refused, it does not fit, or there are pictures for a model
            that is quantized already
    """
    if images is not None and (model in named_graphs() or model in PRESETS):
        raise ValueError(f"{model} is quantized already; pictures (--images) calibrate a float checkpoint")
    path = named_graphs().get(model, Path(model))
    if is_checkout_only(model) and not path.exists():
        raise ValueError(_only_in_a_checkout(model, f"{model}{_GRAPH}"))
    if model in PRESETS or not path.exists():
        if target is not None and model in PRESETS:
            require_fit(PRESETS[model], target, expert_bits)
        return preset_graph(model, cache, seed, expert_bits)
    metadata = read_metadata(path)
    if is_graph_file(metadata):
        graph = read_graph(path)
        if target is not None:
            require_fit(graph.config, target, graph.expert_bits)
        if images is not None:
            raise ValueError(f"{path} is quantized already; pictures (--images) calibrate a float checkpoint")
        return graph
    if "qat" in metadata:
        raise ValueError(
            f"{path}: latent weights of quantization-aware training; give the integer graph that was "
            f"written with them, {model_label(model)}{_GRAPH}"
        )
    if CHECKPOINT_KEY not in metadata:
        raise ValueError(f"{path} {describe(path)}")
    if target is not None:
        require_fit(read_shape(metadata), target, expert_bits)
    options = quantize.QuantizeOptions(expert_bits=expert_bits)
    if images is not None:
        pictures = quantize.calibration_folder(images, read_shape(metadata), count, notes=notes)
        return quantize.quantize_checkpoint(path, pictures, options)
    warn_of_scenes(path)
    return quantize.quantize_checkpoint(path, options=options)


def _learnt_scenes(metadata: Mapping[str, str]) -> bool:
    """Whether a float checkpoint was trained on generated scenes, which then calibrate it rightly."""
    with contextlib.suppress(JsonError):
        found = parse_json(metadata.get("train", ""))
        return isinstance(found, dict) and found.get("data", "scenes") == "scenes"
    return False


def warn_of_scenes(path: Path, count: int = 12) -> None:
    """A ``CalibrationWarning``, if a checkpoint that generated scenes calibrate was trained on anything else.

    Raises:
        ValueError: the file cannot be read
    """
    if _learnt_scenes(read_metadata(path)):
        return
    text = (
        f"WARNING: {path} is calibrated on {count} generated scenes, not on pictures like those that it will see: its "
        f"accuracy on real pictures will suffer. Calibrate it on a folder of a dozen typical ones: edgemoe quantize "
        f"{shlex.quote(str(path))} --images FOLDER --out {model_label(path.name)}{_GRAPH} "
        f"(or edgemoe compile --images FOLDER)"
    )
    warnings.warn(text, CalibrationWarning, stacklevel=3)
