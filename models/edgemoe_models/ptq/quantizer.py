"""One post-training quantization, layer by layer: what was observed, and the scales chosen from it. NumPy only.

All of these keep the float function exactly and only make it easier to round: channel ranges move between a LayerNorm
(or v) and the next layer's weights, means of LayerNorm outputs, keys and values move into biases, q and k share their
ranges, gate rows are centred. Which ranges are best is measured on the calibration images. At the end the last layer
of each head is fitted to what the integer layers before it give.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import POOLS, ModelConfig
from edgemoe_models.exact.functions import LOG2_E
from edgemoe_models.exact.sums import Doubles, mean, total
from edgemoe_models.float_reference import PIXEL_SCALE, Floats
from edgemoe_models.graph.integer_graph import (
    UNSIGNED_MAX,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLayerNorm,
    IntegerLinear,
)
from edgemoe_models.integer import reference
from edgemoe_models.model_image import patchify
from edgemoe_models.ptq.activations import ActivationScale, Shifts, fit_activation
from edgemoe_models.ptq.layers import (
    InputScale,
    make_linear,
    make_norm,
    scalar_requant,
)
from edgemoe_models.ptq.observation import observe
from edgemoe_models.ptq.options import QuantizeOptions
from edgemoe_models.ptq.relevance import least_relevant
from edgemoe_models.ptq.rounding import spread
from edgemoe_models.ptq.search import (
    Channels,
    attention_scales,
    channel_ranges,
    refit_weights,
    tensor_range,
)

RESIDUAL_HEADROOM = 1.5
OUTPUT_HEADROOM = 1.5
SCORE_HEADROOM = 1.15
SCORE_UNIT, SCORE_MAX = 64, 2047
GATE_UNIT = 1024
#: A mean over fewer calibration rows than this says too little to correct a bias with.
_ENOUGH_ROWS = 64


class Quantizer:
    """One quantization: the float model, what was observed, and the scales chosen so far.

    Raises:
        QuantizeError: a layer's ranges are absurd.
    """

    def __init__(
        self,
        state: dict[str, Floats],
        config: ModelConfig,
        images: npt.NDArray[np.uint8],
        options: QuantizeOptions,
    ) -> None:
        self.state, self.config, self.images, self.options = state, config, images, options
        self.observed = observe(state, config, images)
        self.seen = self.observed.rows
        residuals = [value for name, value in self.seen.items() if name == "embed" or ".residual" in name]
        peak = max(float(np.abs(value).max()) for value in residuals)
        self.residual_scale = float(options.rounded(max(peak, 1e-6) * RESIDUAL_HEADROOM / 32767))
        self.scales: dict[str, npt.NDArray[np.float32]] = {}
        self.clipping: dict[str, float] = {}  # by trace name, on images that had no part in the range
        self.int4 = least_relevant(state, config, images, options)
        self.head_inputs: dict[str, InputScale] = {}  # of each head's last layer, by task

    def graph(self) -> IntegerGraph:
        config, state = self.config, self.state
        patch_embed = self._patch_embed()
        position = state["pos_embed"].astype(np.float64)
        if config.prefix_tokens:
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
            expert_use=self.observed.use,
        )
        if self.options.refit:
            heads = {name: self._refit(graph, name, head) for name, head in graph.heads.items()}
            graph = dataclasses.replace(graph, heads=heads)
        graph.bound_check()
        return graph

    def _all_scales(self) -> dict[str, npt.NDArray[np.float32]]:
        residuals = ["embed", *(f"blocks.{i}.residual{n}" for i in range(self.config.depth) for n in (1, 2))]
        return self.scales | {name: np.float32(self.residual_scale).reshape(()) for name in residuals}

    def _linear(
        self, name: str, index: int | None, inputs: InputScale, out_scale: npt.NDArray[Any] | float, x: Doubles | None
    ) -> IntegerLinear:
        """A layer of the state dict (of expert ``index``, if given) whose calibration inputs are ``x``."""
        if index is None:
            weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
            return self._layer(weight, bias, inputs, out_scale, x, self._bits(name))
        weight, bias = (self.state[name.replace("#", kind)][index] for kind in ("w", "b"))
        return self._layer(weight, bias, inputs, out_scale, x, self.options.expert_bits)

    def _bits(self, name: str) -> int:
        """Of the weights of a layer of the state dict that is no expert's."""
        return 4 if name.replace(".attn.", ".").replace(".mlp.", ".") in self.int4 else 8

    def _layer(
        self,
        weight: Floats,
        bias: Floats,
        inputs: InputScale,
        out_scale: npt.NDArray[Any] | float,
        x: Doubles | None,
        bits: int = 8,
    ) -> IntegerLinear:
        if x is None or len(x) < _ENOUGH_ROWS:
            return make_linear(weight, bias, inputs, out_scale, self.options, bits)
        integers = InputScale.integers(x, inputs.mean, inputs.unit)
        out_mean = total(weight * mean(x, 0)) if self.options.correct_bias else None
        inputs = inputs.of_rows(x)
        known = self._moments(integers)
        return make_linear(weight, bias, inputs, out_scale, self.options, bits, out_mean=out_mean, **known)

    def _moments(self, integers: npt.NDArray[Any]) -> dict[str, Any]:
        """What is known of a layer's integer inputs [R, K], for ``make_linear``."""
        moments = {"power": mean(np.square(integers), 0)}
        return moments | {"covariance": spread(integers)} if self.options.compensate else moments

    def _patch_embed(self) -> IntegerLinear:
        patches = np.concatenate([patchify(image, self.config.patch) for image in self.images]).astype(np.float64)
        inputs = InputScale(np.zeros(patches.shape[1]), np.full(patches.shape[1], PIXEL_SCALE), mean(patches, 0))
        weight, bias = self.state["patch_embed.weight"], self.state["patch_embed.bias"]
        out_mean = total(weight * (inputs.x_mean * PIXEL_SCALE)) if self.options.correct_bias else None
        return make_linear(
            weight,
            bias,
            inputs,
            self.residual_scale,
            self.options,
            max_activation=UNSIGNED_MAX,
            out_mean=out_mean,
            **self._moments(patches),
        )

    def _mean(self, x: Doubles) -> Doubles:
        """The mean [K] of rows [N, K] that equalization moves out of them."""
        return mean(x, 0) if self.options.equalize else np.zeros(x.shape[1])

    def _note_clipping(self, trace: str, found: Channels) -> None:
        if found.clipping is not None:
            self.clipping[trace] = found.clipping

    def _norm(
        self, trace: str, name: str, weights: list[Floats], bits: tuple[int, ...] = ()
    ) -> tuple[IntegerLayerNorm, InputScale]:
        """A LayerNorm and the scale of its outputs, for the layers ``weights`` of ``bits`` that consume them."""
        x = self.seen[trace]
        moved = self._mean(x)
        halves = self.observed.halves(trace)
        found = channel_ranges(x - moved, weights, self.options, bits, halves=halves)
        self._note_clipping(trace, found)
        inputs = InputScale.fit(x, found.factors * found.scale, moved)
        self.scales[trace] = inputs.unit.astype(np.float32)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return make_norm(weight, bias, inputs, self.residual_scale, self.config.eps), inputs

    def _block(self, i: int) -> IntegerBlock:
        name, qkv = f"blocks.{i}", f"blocks.{i}.attn.qkv"
        norm1, inputs = self._norm(f"{name}.norm1", f"{name}.norm1", [self.state[f"{qkv}.weight"]], (self._bits(qkv),))
        attention = self._attention(name, inputs)
        if self.config.is_moe(i):
            return IntegerBlock(norm1=norm1, **attention, **self._experts(name))
        fc1, fc2 = f"{name}.mlp.fc1", f"{name}.mlp.fc2"
        norm2, inputs = self._norm(f"{name}.norm2", f"{name}.norm2", [self.state[f"{fc1}.weight"]], (self._bits(fc1),))
        hidden = self.seen[f"{name}.hidden"]
        scale, (shift,) = self._fit_activation([f"{name}.hidden"], [self.state[f"{fc2}.weight"]], self._bits(fc2))
        middle = self._hidden(f"{name}.hidden", scale, shift, hidden)
        first = self._linear(fc1, None, inputs, scale.unit, self.seen[f"{name}.norm2"])
        return IntegerBlock(
            norm1=norm1,
            **attention,
            norm2=norm2,
            activation=scale.activation,
            fc1=dataclasses.replace(first, activation_shift=shift),
            fc2=self._linear(fc2, None, middle, self.residual_scale, hidden),
        )

    def _fit_activation(
        self, traces: list[str], weights: list[Floats], bits: int = 8
    ) -> tuple[ActivationScale, list[Shifts]]:
        """Of layers that share a table, by the traces of their outputs; ``weights`` of the layers behind them."""
        rows = [self.seen[trace].reshape(-1, weight.shape[1]) for trace, weight in zip(traces, weights, strict=True)]
        halves = [self.observed.halves(trace) for trace in traces]
        return fit_activation(self.config.activation, rows, weights, self.options, bits, halves)

    def _hidden(self, trace: str, scale: ActivationScale, shift: Shifts, hidden: Doubles) -> InputScale:
        """The scale of an activation function's outputs."""
        self.scales[trace] = scale.step(shift).astype(np.float32)
        return scale.inputs(hidden, shift)

    def _attention(self, name: str, inputs: InputScale) -> dict[str, Any]:
        dim, heads, head_dim = self.config.dim, self.config.heads, self.config.head_dim
        q, k, v = (self.seen[f"{name}.{part}"] for part in "qkv")
        # Softmax ignores what all keys share, and probabilities sum to one: k and v may lose their means.
        k_mean, v_mean = self._mean(k), self._mean(v)
        k, v = k - k_mean, v - v_mean
        context = self.seen[f"{name}.context"]
        shape = len(self.images) * len(self.config.tasks), -1, heads, head_dim
        # What makes base-2 logarithms of q . k is in the multiplier or, no power of two, in q's weights.
        factor = LOG2_E / math.sqrt(head_dim)
        folded = factor if self.options.power_of_two else 1.0
        balance, s_q, s_k = attention_scales(
            q.reshape(shape) * folded, k.reshape(shape), factor / folded / LOG2_E, self.options
        )
        proj, bits = self.state[f"{name}.attn.proj.weight"], (self._bits(f"{name}.attn.proj"),)
        halves = self.observed.halves(f"{name}.context")
        found = channel_ranges(context - v_mean, [proj], self.options, bits, halves=halves, bound=v)
        self._note_clipping(f"{name}.context", found)
        a, s_context = found.factors, found.scale
        found = tensor_range(v / a, self.options, halves)
        self._note_clipping(f"{name}.v", found)
        s_v = found.scale
        out_scale = np.concatenate([s_q / balance, s_k * balance, s_v * a])
        fold = np.repeat([folded, 1.0, 1.0], dim)
        self.scales |= {
            f"{name}.{part}": scale.astype(np.float32)
            for part, scale in zip("qkv", np.split(out_scale / fold, 3), strict=True)
        }
        self.scales[f"{name}.context"] = (s_context * a).astype(np.float32)
        bias = self.state[f"{name}.attn.qkv.bias"] - np.concatenate([np.zeros_like(k_mean), k_mean, v_mean])
        weight = self.state[f"{name}.attn.qkv.weight"] * fold[:, None]
        shift = self._score_shift(name, q, k_mean)
        unit = 2.0**shift / SCORE_UNIT
        self.scales[f"{name}.scores"] = np.float32(unit).reshape(())
        after = InputScale.fit(context, s_context * a, v_mean)
        return {
            "qkv": self._layer(
                weight, bias * fold, inputs, out_scale, self.seen[f"{name}.norm1"], self._bits(f"{name}.attn.qkv")
            ),
            "score": scalar_requant(s_q * s_k * (factor / folded) / unit),
            "score_shift": shift,
            "context": scalar_requant(s_v / s_context),
            "proj": self._linear(f"{name}.attn.proj", None, after, self.residual_scale, context),
        }

    def _score_shift(self, name: str, q: Doubles, k_mean: Doubles) -> int:
        """The smallest ``score_shift`` at which no score saturates, after the keys have lost their mean."""
        config = self.config
        scores = self.seen[f"{name}.scores"]  # [B, heads, T, T], base 2
        heads = q.reshape(len(scores), config.num_tokens, config.heads, config.head_dim)
        common = total(heads * k_mean.reshape(config.heads, -1)).transpose(0, 2, 1)
        common = common * LOG2_E / math.sqrt(config.head_dim)
        peak = SCORE_HEADROOM * float(np.abs(scores - common[..., None]).max()) * SCORE_UNIT
        return next((shift for shift in range(3) if peak <= SCORE_MAX << shift), 3)

    def _experts(self, name: str) -> dict[str, Any]:
        state, experts = self.state, range(self.config.num_experts)
        gates = {task.name: state[f"{name}.moe.gate.{task.name}"] for task in self.config.tasks}
        # Softmax ignores what all experts share. Logits are base-2 logarithms.
        gates = {task: (gate - mean(gate.astype(np.float64), 0)) * LOG2_E for task, gate in gates.items()}
        w1, w2 = state[f"{name}.moe.w1"], state[f"{name}.moe.w2"]
        layers = [np.concatenate(list(gates.values())), w1.reshape(-1, w1.shape[-1])]
        bits = self.options.expert_bits
        norm2, inputs = self._norm(f"{name}.norm2", f"{name}.norm2", layers, (8, bits))
        rows = [self.seen[f"{name}.experts.{e}.input"] for e in experts]
        hidden = [self.seen[f"{name}.experts.{e}.hidden"] for e in experts]
        scale, shifts = self._fit_activation([f"{name}.experts.{e}.hidden" for e in experts], list(w2), bits)
        middle = [self._hidden(f"{name}.experts.{e}.hidden", scale, shifts[e], hidden[e]) for e in experts]
        self.scales[f"{name}.gate_logits"] = np.float32(1.0 / (GATE_UNIT * LOG2_E)).reshape(())
        zero = np.zeros(self.config.num_experts, np.float32)
        x = self.seen[f"{name}.norm2"]
        moe = f"{name}.moe"
        return {
            "norm2": norm2,
            "activation": scale.activation,
            "gates": {task: self._layer(gate, zero, inputs, 1.0 / GATE_UNIT, x) for task, gate in gates.items()},
            "expert_fc1": tuple(
                dataclasses.replace(
                    self._linear(f"{moe}.#1", e, inputs, scale.unit, rows[e]), activation_shift=shifts[e]
                )
                for e in experts
            ),
            "expert_fc2": tuple(
                self._linear(f"{moe}.#2", e, middle[e], self.residual_scale, hidden[e]) for e in experts
            ),
        }

    def _head_layer(self, task: str) -> str:
        """State-dict name of the layer that reads the final LayerNorm."""
        return f"heads.{task}" + (".fc1" if self.config.task(task).head_hidden else "")

    def _head(self, task: str, inputs: InputScale) -> IntegerHead:
        name, layer = f"heads.{task}", self._head_layer(task)
        peak = float(np.abs(self._used(task)).max())
        out_scale = float(self.options.rounded(max(peak, 1e-6) * OUTPUT_HEADROOM / 32767))
        self.scales[name] = np.float32(out_scale).reshape(())
        if layer == name:
            self.head_inputs[task] = inputs
            return IntegerHead(self._linear(layer, None, inputs, out_scale, None), out_scale)
        hidden = self.seen[f"{name}.hidden"]
        hidden = hidden.reshape(-1, hidden.shape[-1])
        scale, (shift,) = self._fit_activation([f"{name}.hidden"], [self.state[f"{name}.fc2.weight"]])
        middle = self.head_inputs[task] = self._hidden(f"{name}.hidden", scale, shift, hidden)
        fc1 = self._linear(layer, None, inputs, scale.unit, None)
        out = self._linear(f"{name}.fc2", None, middle, out_scale, hidden)
        return IntegerHead(out, out_scale, dataclasses.replace(fc1, activation_shift=shift), scale.activation)

    def _used(self, task: str) -> Doubles:
        """The head's outputs that the host reads: of two heads in one layer, each one's of its own tokens."""
        config, outputs = self.config.task(task), self.seen[f"heads.{task}"]
        if POOLS[config.pool] == 1:
            return outputs
        rows = outputs.reshape(-1, self.config.head_rows(task)[1], outputs.shape[-1])
        second = slice(1, 2) if config.pool == "cls-dist" else slice(self.config.prefix_tokens, None)
        return np.concatenate([rows[:, 0, : config.channels].ravel(), rows[:, second, config.channels :].ravel()])

    def _refit(self, graph: IntegerGraph, task: str, head: IntegerHead) -> IntegerHead:
        """The head with a last layer that makes up for errors before it, as far as they follow from its inputs."""
        name, inputs = f"heads.{task}", self.head_inputs[task]
        trace: reference.Trace = {}
        reference.run_batch(graph, self.images, task, trace)
        integers = trace[f"{name}.hidden" if head.fc1 is not None else "norm"].astype(np.float64)
        if len(integers) < _ENOUGH_ROWS or POOLS[self.config.task(task).pool] > 1:  # other tokens would be fitted too
            return head
        last = f"{name}.fc2" if head.fc1 is not None else name
        bias, outputs = self.state[f"{last}.bias"], self.seen[name].reshape(len(integers), -1)
        weight = refit_weights(self.state[f"{last}.weight"], integers * inputs.unit, outputs)
        return dataclasses.replace(
            head,
            out=make_linear(
                weight,
                bias,
                dataclasses.replace(inputs, x_mean=mean(integers, 0)),
                head.output_scale,
                self.options,
                out_mean=mean(outputs, 0) - bias,
                **self._moments(integers),
            ),
        )
