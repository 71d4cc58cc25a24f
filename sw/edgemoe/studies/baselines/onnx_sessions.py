"""ONNX Runtime: CPU, CUDA and TensorRT. Needs onnx and onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from edgemoe.studies.baselines.onnx_network import float_network
from edgemoe.studies.baselines.workload import (
    Images,
    Rows,
    Unavailable,
    Workload,
    activation_ranges,
)

__all__ = ["load_cpu", "load_cuda", "load_int8", "load_tensorrt"]


class OnnxSession:
    """A session whose tensors stay on ``device``."""

    def __init__(self, model: bytes, batch: int, threads: int, providers: Sequence[str], device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_free_dimension_override_by_name("batch", batch)
        options.log_severity_level = 3
        self.device = device
        self.session = onnxruntime.InferenceSession(model, options, providers=list(providers))
        self.binding = self.session.io_binding()

    def feed(self, images: Images) -> None:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images), self.device, 0)
        self.binding.bind_ortvalue_input("images", value)
        self.binding.bind_output("rows", self.device)

    def step(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def output(self) -> Rows:
        rows: Rows = self.binding.copy_outputs_to_cpu()[0]
        return rows


def load_cpu(workload: Workload, batch: int, threads: int, dense: bool = False) -> OnnxSession:
    """float32 on the CPU."""
    return _session(float_network(workload, dense), batch, threads)


def load_int8(workload: Workload, batch: int, threads: int) -> OnnxSession:
    """The QDQ network, sparse experts, on the CPU."""
    return _session(float_network(workload, ranges=activation_ranges(workload)), batch, threads)


def load_cuda(workload: Workload, batch: int, threads: int) -> OnnxSession:
    """float32, dense experts (their shapes do not depend on data)."""
    return _session(float_network(workload, dense=True), batch, threads, "CUDAExecutionProvider")


def load_tensorrt(workload: Workload, batch: int, threads: int) -> OnnxSession:
    """float32, dense experts; TensorRT leaves to CUDA what it does not know."""
    return _session(
        float_network(workload, dense=True), batch, threads, "TensorrtExecutionProvider", "CUDAExecutionProvider"
    )


def _session(model: Any, batch: int, threads: int, *providers: str) -> OnnxSession:
    if not set(providers) <= set(onnxruntime.get_available_providers()):
        raise Unavailable(f"not available: this onnxruntime has no {providers[0]} (it is in onnxruntime-gpu)")
    session = OnnxSession(
        model.SerializeToString(), batch, threads, [*providers, "CPUExecutionProvider"], "cuda" if providers else "cpu"
    )
    if providers and providers[0] not in session.session.get_providers():
        raise Unavailable(f"not available: {providers[0]} does not start here (no GPU, or its libraries are missing)")
    return session
