"""PyTorch on the CPU and on CUDA GPUs. Needs torch."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

from edgemoe.studies.baselines.torch_network import DenseExperts, LinearExperts, build_network
from edgemoe.studies.baselines.workload import Images, Rows, Unavailable, Workload

__all__ = ["load_compiled", "load_compiled_cuda", "load_cuda", "load_cuda_graph", "load_eager", "load_int8"]


class TorchSession:
    """A network called as it is."""

    def __init__(self, network: nn.Module, device: str = "cpu") -> None:
        self.network, self.device = network, torch.device(device)
        self.images, self.rows = torch.empty(0), torch.empty(0)

    def feed(self, images: Images) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)

    @torch.inference_mode()
    def step(self) -> None:
        self.rows = self.network(self.images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def output(self) -> Rows:
        rows: Rows = self.rows.float().cpu().numpy()
        return rows


class CudaGraphSession(TorchSession):
    """A network captured once as a CUDA graph and replayed: one launch an inference. Shapes must not depend on data."""

    _WARM_UP = 3  # before the capture, as PyTorch's documentation asks for

    def __init__(self, network: nn.Module, example: Images) -> None:
        super().__init__(network, "cuda")
        super().feed(example)
        self.graph = torch.cuda.CUDAGraph()
        self._capture()

    @torch.inference_mode()
    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self._WARM_UP):
                self.network(self.images)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self.graph):
            self.rows = self.network(self.images)

    @torch.inference_mode()
    def feed(self, images: Images) -> None:
        self.images.copy_(torch.from_numpy(np.ascontiguousarray(images)))

    def step(self) -> None:
        self.graph.replay()
        torch.cuda.synchronize(self.device)


def load_eager(workload: Workload, batch: int, threads: int, dense: bool = False) -> TorchSession:
    """float32 on the CPU."""
    torch.set_num_threads(threads)
    return TorchSession(build_network(workload, DenseExperts if dense else None))


def load_compiled(workload: Workload, batch: int, threads: int) -> TorchSession:
    """torch.compile with dense experts: the sparse ones' queues have lengths that only data tell."""
    torch.set_num_threads(threads)
    network = build_network(workload, DenseExperts)
    network.compile(fullgraph=True, dynamic=False)
    return TorchSession(network)


def load_int8(workload: Workload, batch: int, threads: int) -> TorchSession:
    """Dynamic quantization of every linear layer, the experts' too."""
    torch.set_num_threads(threads)
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError:
        raise Unavailable("not available: this PyTorch has no torch.ao.quantization any more") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated; docs/benchmarks.md says so
        return TorchSession(quantize_dynamic(build_network(workload, LinearExperts), {nn.Linear}, torch.qint8))


def load_cuda(workload: Workload, batch: int, threads: int, dense: bool = False, half: bool = False) -> TorchSession:
    """Eager on a GPU; ``half``: bfloat16, gates in float32."""
    require_gpu()
    network = build_network(workload, DenseExperts if dense else None)
    return TorchSession((to_half(network) if half else network).cuda(), "cuda")


def load_compiled_cuda(workload: Workload, batch: int, threads: int, half: bool = False) -> TorchSession:
    """torch.compile on a GPU with CUDA graphs ("reduce-overhead"), dense experts."""
    require_gpu()
    network = build_network(workload, DenseExperts)
    network = (to_half(network) if half else network).cuda()
    torch._dynamo.reset()  # its limit of recompilations counts those of all earlier networks and batches
    network.compile(fullgraph=True, dynamic=False, mode="reduce-overhead")
    return TorchSession(network, "cuda")


def load_cuda_graph(workload: Workload, batch: int, threads: int, half: bool = False) -> TorchSession:
    """A CUDA graph, dense experts."""
    require_gpu()
    network = build_network(workload, DenseExperts)
    return CudaGraphSession((to_half(network) if half else network).cuda(), workload.images[:batch])


def require_gpu() -> None:
    """Unavailable without a CUDA GPU that this PyTorch can use. float32 products stay float32 (no TF32)."""
    if not torch.cuda.is_available():
        raise Unavailable("not available: PyTorch finds no CUDA GPU")
    torch.backends.cuda.matmul.allow_tf32 = False


def to_half(network: nn.Module) -> nn.Module:
    """In bfloat16 but for the gates: rounded ones would choose other experts."""
    gates = {name: parameter.clone() for name, parameter in network.named_parameters() if ".gate." in name}
    network = network.to(torch.bfloat16)
    for name, parameter in network.named_parameters():
        if name in gates:
            parameter.data = gates[name]
    return network
