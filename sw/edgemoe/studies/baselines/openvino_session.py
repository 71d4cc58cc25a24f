"""OpenVINO on the CPU. Needs onnx and openvino.

``inference_precision`` is set: OpenVINO would take bfloat16 by itself where the CPU has it. Networks are read by
``Core.read_model``, which, unlike the converter, sends no telemetry.
"""

from __future__ import annotations

import numpy as np
import openvino

from edgemoe.studies.baselines.onnx_network import float_network
from edgemoe.studies.baselines.workload import Images, Rows, Workload, activation_ranges

__all__ = ["load_cpu", "load_int8"]


class OpenVinoSession:
    """A network compiled for the latency of one request."""

    def __init__(self, model: bytes, batch: int, threads: int) -> None:
        core = openvino.Core()
        network = core.read_model(model)
        network.reshape([batch, *(dimension.get_length() for dimension in list(network.input().partial_shape)[1:])])
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
            },
        )
        self.request = compiled.create_infer_request()

    def feed(self, images: Images) -> None:
        self.request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(images)))

    def step(self) -> None:
        self.request.infer()

    def output(self) -> Rows:
        rows: Rows = self.request.get_output_tensor().data.copy()
        return rows


def load_cpu(workload: Workload, batch: int, threads: int, dense: bool = False) -> OpenVinoSession:
    """float32."""
    return OpenVinoSession(float_network(workload, dense).SerializeToString(), batch, threads)


def load_int8(workload: Workload, batch: int, threads: int) -> OpenVinoSession:
    """The QDQ network, sparse experts."""
    network = float_network(workload, ranges=activation_ranges(workload))
    return OpenVinoSession(network.SerializeToString(), batch, threads)
