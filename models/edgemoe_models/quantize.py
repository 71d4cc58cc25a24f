"""Post-training quantization: float state dict + calibration images -> integer graph. NumPy only.

All of these keep the float function exactly and only make it easier to round: channel ranges move between a LayerNorm
(or v) and the next layer's weights, means of LayerNorm outputs, keys and values move into biases, q and k share their
ranges, gate rows are centred. Which ranges are best is measured on the calibration images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from edgemoe_models import float_reference, scenes
from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import PIXEL_SCALE, Floats, patchify, state_shapes
from edgemoe_models.graph import (
    UNSIGNED_MAX,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLayerNorm,
    IntegerLinear,
)
from edgemoe_models.quantize_search import (
    SMALLEST_GELU_SCALE,
    InputScale,
    QuantizeError,
    activation_scale,
    attention_scales,
    gelu_unit,
    make_gelu,
    make_linear,
    make_norm,
    scalar_requant,
    smooth,
)

__all__ = [
    "QuantizeError", "calibration_images", "check_state", "load_checkpoint", "quantize", "quantize_checkpoint",
]  # fmt: skip

LOG2_E = math.log2(math.e)
RESIDUAL_HEADROOM = 1.5
OUTPUT_HEADROOM = 1.5
SCORE_HEADROOM = 1.15
SCORE_UNIT, SCORE_MAX = 64, 2047
GATE_UNIT = 1024
LARGEST_WEIGHT = 1e4
#: A mean over fewer calibration rows than this says too little to correct a bias with.
_ENOUGH_ROWS = 64


def check_state(state: Mapping[str, npt.NDArray[Any]], config: ModelConfig) -> dict[str, Floats]:
    """The state dict in float32, complete and finite.

    Raises
    ------
    QuantizeError: names the first tensor that is missing, unexpected, of a wrong shape or type, or not finite.
    """
    shapes = state_shapes(config)
    for name in state:
        if name not in shapes:
            raise QuantizeError(f"state dict has an unexpected tensor {name}; is it a checkpoint of {config.name}?")
    result = {}
    for name, shape in shapes.items():
        if name not in state:
            raise QuantizeError(f"state dict lacks {name} {list(shape)}; is it a checkpoint of {config.name}?")
        array = np.asarray(state[name])
        if array.shape != shape:
            raise QuantizeError(f"{name} must have the shape {list(shape)}, not {list(array.shape)}")
        if not np.issubdtype(array.dtype, np.floating):
            raise QuantizeError(f"{name} must be floating point, not {array.dtype.name}")
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise QuantizeError(f"{name} holds {bad} NaN or infinite values; the checkpoint is broken, train it again")
        if (peak := float(np.abs(array).max())) > LARGEST_WEIGHT:
            raise QuantizeError(f"{name} holds values up to {peak:.3g}, weights must be at most {LARGEST_WEIGHT:.0e}")
        result[name] = array
    return result


def load_checkpoint(path: Path | str) -> tuple[dict[str, Floats], ModelConfig]:
    """A float checkpoint: safetensors with the model's config as JSON under the metadata key ``config``.

    Raises
    ------
    QuantizeError: the file cannot be read, has no config, or its tensors do not fit it.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise QuantizeError(f"{path}: not a readable safetensors checkpoint ({error})") from None
    if "config" not in metadata:
        raise QuantizeError(f"{path}: the metadata key 'config' (the model's config as JSON) is missing")
    try:
        config = ModelConfig.from_dict(json.loads(metadata["config"]))
        return check_state(state, config), config
    except QuantizeError as error:
        raise QuantizeError(f"{path}: {error}") from None
    except (ValueError, TypeError) as error:
        raise QuantizeError(f"{path}: its config is wrong: {error}") from None


def calibration_images(config: ModelConfig, count: int = 12) -> npt.NDArray[np.uint8]:
    """The first scenes of the training split at the model's size, uint8 [count, H, W, 3]."""
    seeds = scenes.SPLITS["train"][:count]
    return np.stack([scenes.generate_scene(seed, config.image_height, config.image_width).image for seed in seeds])


def quantize_checkpoint(path: Path | str, images: npt.NDArray[np.uint8] | None = None) -> IntegerGraph:
    """Quantize a float checkpoint file, with :func:`calibration_images` unless others are given."""
    state, config = load_checkpoint(path)
    return quantize(state, config, calibration_images(config) if images is None else images)


def quantize(
    state: Mapping[str, npt.NDArray[Any]], config: ModelConfig, images: npt.NDArray[np.uint8]
) -> IntegerGraph:
    """Post-training quantization.

    Parameters
    ----------
    state: float state dict (float16, float32 or float64)
    images: calibration images, uint8 [B, H, W, 3] at the model's size; 8 to 16 typical ones are enough

    Raises
    ------
    QuantizeError: weights or images do not fit the model, or are not finite.
    """
    wanted = (config.image_height, config.image_width, 3)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8 or not len(images):
        raise QuantizeError(f"calibration images must be uint8 [B, {', '.join(map(str, wanted))}], "
                            f"not {images.dtype.name} {list(images.shape)}")  # fmt: skip
    return _Quantizer(check_state(state, config), config, images).graph()


def _observe(state: dict[str, Floats], config: ModelConfig, images: npt.NDArray[np.uint8]) -> dict[str, Floats]:
    """Activations of all images and tasks, joined, by trace name, with ``.experts.{e}.input`` added."""
    parts: dict[str, list[Floats]] = {}
    for task in config.tasks:
        seen: dict[str, Any] = {}
        float_reference.forward(state, config, images, task.name, seen)
        for name, value in seen.items():
            if name.endswith(".queues"):
                block = name.removesuffix(".queues")
                for e, queue in enumerate(value):
                    parts.setdefault(f"{block}.experts.{e}.input", []).append(seen[f"{block}.norm2"][queue])
            elif not name.endswith(".gate_scores"):
                parts.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in parts.items()}


class _Quantizer:
    """One quantization: the float model, what was observed, and the scales chosen so far."""

    def __init__(self, state: dict[str, Floats], config: ModelConfig, images: npt.NDArray[np.uint8]) -> None:
        self.state, self.config, self.images = state, config, images
        with np.errstate(over="ignore", invalid="ignore"):
            self.seen = _observe(state, config, images)
        for name, value in self.seen.items():
            if not np.isfinite(value).all():
                raise QuantizeError(f"{name} of the float model overflows on the calibration images; train it again")
        residuals = [value for name, value in self.seen.items() if name == "embed" or ".residual" in name]
        peak = max(float(np.abs(value).max()) for value in residuals)
        self.residual_scale = max(peak, 1e-6) * RESIDUAL_HEADROOM / 32767
        self.scales: dict[str, npt.NDArray[np.float32]] = {}

    def graph(self) -> IntegerGraph:
        config, state = self.config, self.state
        patch_embed = self._patch_embed()
        position = state["pos_embed"].astype(np.float64)
        position[0] += state["cls_token"]
        blocks = tuple(self._block(i) for i in range(config.depth))
        readers = [state[f"{self._head_layer(task.name)}.weight"] for task in config.tasks]
        norm, inputs = self._norm("norm", "norm", readers)
        graph = IntegerGraph(
            config=config,
            residual_scale=self.residual_scale,
            pos_embed=np.clip(np.rint(position / self.residual_scale), -32767, 32767).astype(np.int16),
            patch_embed=patch_embed,
            blocks=blocks,
            norm=norm,
            heads={task.name: self._head(task.name, inputs) for task in config.tasks},
            scales=self._all_scales(),
        )
        graph.bound_check()
        return graph

    def _all_scales(self) -> dict[str, npt.NDArray[np.float32]]:
        residuals = ["embed", *(f"blocks.{i}.residual{n}" for i in range(self.config.depth) for n in (1, 2))]
        return self.scales | {name: np.float32(self.residual_scale).reshape(()) for name in residuals}

    def _linear(
        self, name: str, index: int | None, inputs: InputScale, out_scale: npt.NDArray[Any] | float, x: Floats | None
    ) -> IntegerLinear:
        """A layer of the state dict (of expert ``index``, if given) whose calibration inputs are ``x``."""
        if index is None:
            weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        else:
            weight, bias = (self.state[name.replace("#", kind)][index] for kind in ("w", "b"))
        return self._layer(weight, bias, inputs, out_scale, x)

    @staticmethod
    def _layer(
        weight: Floats, bias: Floats, inputs: InputScale, out_scale: npt.NDArray[Any] | float, x: Floats | None
    ) -> IntegerLinear:
        if x is None or len(x) < _ENOUGH_ROWS:
            return make_linear(weight, bias, inputs, out_scale)
        integers = InputScale.integers(x, inputs.mean, inputs.unit)
        inputs = inputs.of_rows(x)
        mean = weight.astype(np.float64) @ x.mean(0, dtype=np.float64)
        return make_linear(weight, bias, inputs, out_scale, out_mean=mean, power=np.square(integers).mean(0))

    def _patch_embed(self) -> IntegerLinear:
        patches = np.concatenate([patchify(image, self.config.patch) for image in self.images]).astype(np.float64)
        inputs = InputScale(np.zeros(patches.shape[1]), np.full(patches.shape[1], PIXEL_SCALE), patches.mean(0))
        weight, bias = self.state["patch_embed.weight"], self.state["patch_embed.bias"]
        mean = weight.astype(np.float64) @ (inputs.x_mean * PIXEL_SCALE)
        power = np.square(patches).mean(0)
        return make_linear(weight, bias, inputs, self.residual_scale, UNSIGNED_MAX, mean, power)

    def _norm(self, trace: str, name: str, weights: list[Floats]) -> tuple[IntegerLayerNorm, InputScale]:
        """A LayerNorm and the scale of its outputs, for the layers ``weights`` that consume them."""
        x = self.seen[trace]
        mean = x.mean(0, dtype=np.float64)
        a, s = smooth(x - mean.astype(np.float32), weights)
        inputs = InputScale.fit(x, a * s, mean)
        self.scales[trace] = inputs.unit.astype(np.float32)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return make_norm(weight, bias, inputs, self.residual_scale, self.config.eps), inputs

    def _block(self, i: int) -> IntegerBlock:
        name = f"blocks.{i}"
        norm1, inputs = self._norm(f"{name}.norm1", f"{name}.norm1", [self.state[f"{name}.attn.qkv.weight"]])
        attention = self._attention(name, inputs)
        if self.config.is_moe(i):
            return IntegerBlock(norm1=norm1, **attention, **self._experts(name))
        fc1, fc2 = f"{name}.mlp.fc1", f"{name}.mlp.fc2"
        norm2, inputs = self._norm(f"{name}.norm2", f"{name}.norm2", [self.state[f"{fc1}.weight"]])
        hidden = self.seen[f"{name}.hidden"]
        middle, scale = self._hidden(f"{name}.hidden", hidden, [self.state[f"{fc2}.weight"]])
        return IntegerBlock(
            norm1=norm1, **attention, norm2=norm2, gelu=make_gelu(scale),
            fc1=self._linear(fc1, None, inputs, gelu_unit(scale), self.seen[f"{name}.norm2"]),
            fc2=self._linear(fc2, None, middle, self.residual_scale, hidden),
        )  # fmt: skip

    def _hidden(self, trace: str, hidden: Floats, weights: list[Floats]) -> tuple[InputScale, float]:
        """The scale of a GELU's outputs, one for all channels."""
        _, scale = smooth(hidden, weights, allow_channels=False)
        scale = max(scale, SMALLEST_GELU_SCALE)  # a finer one would cut the table's tail off
        self.scales[trace] = np.float32(scale).reshape(())
        return InputScale.fit(hidden, np.asarray(scale)), scale

    def _attention(self, name: str, inputs: InputScale) -> dict[str, Any]:
        q, k, v = (self.seen[f"{name}.{part}"] for part in "qkv")
        # Softmax ignores what all keys share, and probabilities sum to one: k and v may lose their means.
        k_mean, v_mean = (x.mean(0, dtype=np.float64) for x in (k, v))
        k, v = k - k_mean.astype(np.float32), v - v_mean.astype(np.float32)
        context = self.seen[f"{name}.context"]
        proj = self.state[f"{name}.attn.proj.weight"]
        heads = len(self.images) * len(self.config.tasks), -1, self.config.heads, self.config.head_dim
        balance, s_q, s_k = attention_scales(q.reshape(heads), k.reshape(heads), self.config.head_dim**-0.5)
        a, s_context = smooth(context - v_mean.astype(np.float32), [proj])
        s_v = activation_scale(v / a)
        out_scale = np.concatenate([s_q / balance, s_k * balance, s_v * a])
        self.scales |= {
            f"{name}.{part}": scale.astype(np.float32)
            for part, scale in zip("qkv", np.split(out_scale, 3), strict=True)
        }
        self.scales[f"{name}.context"] = (s_context * a).astype(np.float32)
        bias = self.state[f"{name}.attn.qkv.bias"] - np.concatenate([np.zeros_like(k_mean), k_mean, v_mean])
        weight = self.state[f"{name}.attn.qkv.weight"]
        shift = self._score_shift(name, q, k_mean)
        unit = 2.0**shift / SCORE_UNIT
        self.scales[f"{name}.scores"] = np.float32(unit).reshape(())
        after = InputScale.fit(context, s_context * a, v_mean)
        return {
            "qkv": self._layer(weight, bias, inputs, out_scale, self.seen[f"{name}.norm1"]),
            "score": scalar_requant(s_q * s_k * LOG2_E / math.sqrt(self.config.head_dim) / unit),
            "score_shift": shift,
            "context": scalar_requant(s_v / s_context),
            "proj": self._linear(f"{name}.attn.proj", None, after, self.residual_scale, context),
        }

    def _score_shift(self, name: str, q: Floats, k_mean: Floats) -> int:
        """The smallest ``score_shift`` at which no score saturates, after the keys have lost their mean."""
        config = self.config
        scores = self.seen[f"{name}.scores"]  # [B, heads, T, T], base 2
        heads = q.reshape(len(scores), config.num_tokens, config.heads, config.head_dim)
        common = np.einsum("bthd,hd->bht", heads, k_mean.reshape(config.heads, -1))
        common = common * LOG2_E / math.sqrt(config.head_dim)
        peak = SCORE_HEADROOM * float(np.abs(scores - common[..., None]).max()) * SCORE_UNIT
        return next((shift for shift in range(3) if peak <= SCORE_MAX << shift), 3)

    def _experts(self, name: str) -> dict[str, Any]:
        state, experts = self.state, range(self.config.num_experts)
        gates = {task.name: state[f"{name}.moe.gate.{task.name}"] for task in self.config.tasks}
        gates = {task: gate - gate.mean(0) for task, gate in gates.items()}  # softmax ignores what all experts share
        w1, w2 = state[f"{name}.moe.w1"], state[f"{name}.moe.w2"]
        layers = [np.concatenate(list(gates.values())), w1.reshape(-1, w1.shape[-1])]
        norm2, inputs = self._norm(f"{name}.norm2", f"{name}.norm2", layers)
        rows = [self.seen[f"{name}.experts.{e}.input"] for e in experts]
        hidden = [self.seen[f"{name}.experts.{e}.hidden"] for e in experts]
        middle, scale = self._hidden(f"{name}.hidden", np.concatenate(hidden), [w2.reshape(-1, w2.shape[-1])])
        self.scales |= {f"{name}.experts.{e}.hidden": self.scales[f"{name}.hidden"] for e in experts}
        gate_scale = 1.0 / (GATE_UNIT * LOG2_E)
        self.scales[f"{name}.gate_logits"] = np.float32(gate_scale).reshape(())
        zero = np.zeros(self.config.num_experts, np.float32)
        x = self.seen[f"{name}.norm2"]
        moe = f"{name}.moe"
        return {
            "norm2": norm2,
            "gelu": make_gelu(scale),
            "gates": {task: self._layer(gate, zero, inputs, gate_scale, x) for task, gate in gates.items()},
            "expert_fc1": tuple(self._linear(f"{moe}.#1", e, inputs, gelu_unit(scale), rows[e]) for e in experts),
            "expert_fc2": tuple(self._linear(f"{moe}.#2", e, middle, self.residual_scale, hidden[e]) for e in experts),
        }

    def _head_layer(self, task: str) -> str:
        """State-dict name of the layer that reads the final LayerNorm."""
        return f"heads.{task}" + (".fc1" if self.config.task(task).head_hidden else "")

    def _head(self, task: str, inputs: InputScale) -> IntegerHead:
        name, layer = f"heads.{task}", self._head_layer(task)
        peak = float(np.abs(self.seen[name]).max())
        out_scale = max(peak, 1e-6) * OUTPUT_HEADROOM / 32767
        self.scales[name] = np.float32(out_scale).reshape(())
        if layer == name:
            return IntegerHead(self._linear(layer, None, inputs, out_scale, None), out_scale)
        hidden = self.seen[f"{name}.hidden"]
        hidden = hidden.reshape(-1, hidden.shape[-1])
        middle, scale = self._hidden(f"{name}.hidden", hidden, [self.state[f"{name}.fc2.weight"]])
        fc1 = self._linear(layer, None, inputs, gelu_unit(scale), None)
        out = self._linear(f"{name}.fc2", None, middle, out_scale, hidden)
        return IntegerHead(out, out_scale, fc1, make_gelu(scale))
