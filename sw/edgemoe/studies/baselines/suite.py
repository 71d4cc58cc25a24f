"""Which baselines there are, and their rows. Every runtime has a process of its own: their thread pools do not mix."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from edgemoe.extras import install_command
from edgemoe.studies.baselines.measurement import Effort, check, measure
from edgemoe.studies.baselines.workload import Unavailable, Workload, load_workload

__all__ = [
    "BASELINES",
    "SATURATES",
    "Baseline",
    "RunGroup",
    "cpu_info",
    "differing",
    "in_fresh_process",
    "machine",
    "measure_baseline",
    "run_baselines",
]

Row = dict[str, Any]
RunGroup = Callable[["Sequence[Baseline]", Workload, Sequence[int], int, Effort], list[Row]]
_DYNAMIC = (
    "weights of linear layers int8, a scale per tensor; their inputs uint8, scaled when they run; the rest float32"
)
SATURATES = "this processor lacks VNNI: pairs of products saturate at 16 bits, so outputs may be far off"
"""Of the QDQ network (ONNX Runtime's documentation on quantization, U8S8; OpenVINO's on NNCF, "saturation issue")."""
_QDQ = (
    "weights of linear layers int8, a scale per output; their inputs uint8, a scale per tensor from calibration; "
    "the rest float32"
)
_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "zeus", "numpy")


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A way to run a workload.

    Attributes:
        experts: "sparse": an expert computes only the tokens that chose it; "dense": all of them
        loader: module of this package and function, called with workload, batch, threads and ``options``; not imported
            before the baseline is measured, so that an absent package is a row and no error
        quantized: what int8 stands for
    """

    runtime: str
    device: str
    precision: str
    experts: str
    loader: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quantized: str = ""

    def load(self, workload: Workload, batch: int, threads: int) -> Any:
        """A session; raises ImportError, Unavailable, or what the runtime raises."""
        module, function = self.loader.split(".")
        return getattr(importlib.import_module(f"edgemoe.studies.baselines.{module}"), function)(
            workload, batch, threads, **self.options
        )


BASELINES = (
    Baseline("PyTorch eager", "cpu", "float32", "sparse", "torch_sessions.load_eager"),
    Baseline("PyTorch eager", "cpu", "float32", "dense", "torch_sessions.load_eager", options={"dense": True}),
    Baseline("PyTorch eager", "cpu", "int8", "sparse", "torch_sessions.load_int8", quantized=_DYNAMIC),
    Baseline("torch.compile", "cpu", "float32", "dense", "torch_sessions.load_compiled"),
    Baseline("ONNX Runtime", "cpu", "float32", "sparse", "onnx_sessions.load_cpu"),
    Baseline("ONNX Runtime", "cpu", "float32", "dense", "onnx_sessions.load_cpu", options={"dense": True}),
    Baseline("ONNX Runtime", "cpu", "int8", "sparse", "onnx_sessions.load_int8", quantized=_QDQ),
    Baseline("OpenVINO", "cpu", "float32", "sparse", "openvino_session.load_cpu"),
    Baseline("OpenVINO", "cpu", "float32", "dense", "openvino_session.load_cpu", options={"dense": True}),
    Baseline("OpenVINO", "cpu", "int8", "sparse", "openvino_session.load_int8", quantized=_QDQ),
    Baseline("PyTorch CUDA", "cuda", "float32", "sparse", "torch_sessions.load_cuda"),
    Baseline("PyTorch CUDA", "cuda", "bfloat16", "sparse", "torch_sessions.load_cuda", options={"half": True}),
    Baseline("torch.compile CUDA", "cuda", "float32", "dense", "torch_sessions.load_compiled_cuda"),
    Baseline(
        "torch.compile CUDA", "cuda", "bfloat16", "dense", "torch_sessions.load_compiled_cuda", options={"half": True}
    ),
    Baseline("CUDA graph", "cuda", "float32", "dense", "torch_sessions.load_cuda_graph"),
    Baseline("CUDA graph", "cuda", "bfloat16", "dense", "torch_sessions.load_cuda_graph", options={"half": True}),
    Baseline("ONNX Runtime CUDA", "cuda", "float32", "dense", "onnx_sessions.load_cuda"),
    Baseline("ONNX Runtime TRT", "cuda", "float32", "dense", "onnx_sessions.load_tensorrt"),
)


def cpu_info(field: str) -> str:
    """What Linux says of the first processor, "" where it says nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def has_vnni() -> bool:
    """Whether an x86 processor adds four int8 products without saturating; True for what is no x86 Linux."""
    flags = cpu_info("flags").split()
    return "avx2" not in flags or bool({"avx512_vnni", "avx_vnni"} & set(flags))


def measure_baseline(baseline: Baseline, workload: Workload, batch: int, threads: int, effort: Effort) -> Row:
    """One row; ``status`` is "ok", or why there are no figures."""
    experts = baseline.experts if workload.config.num_experts else "none"
    row: Row = {
        "source": "measured",
        "model": workload.config.name,
        "task": workload.task,
        "runtime": baseline.runtime,
        "device": baseline.device,
        "precision": baseline.precision,
        "experts": experts,
        "batch": batch,
        "threads": threads,
    }
    if baseline.quantized:
        row["int8_means"] = baseline.quantized
        if baseline.quantized == _QDQ and not has_vnni():
            row["int8_means"] += f"; {SATURATES}"
    try:
        session = baseline.load(workload, batch, threads)
        row |= check(workload, session, batch, baseline.precision)
        session.feed(workload.images[:batch])
        row |= measure(session, batch, baseline.device, effort)
    except ImportError as error:
        return {**row, "status": f"not installed: {error.name} ({install_command('baselines')})"}
    except Unavailable as error:
        return {**row, "status": str(error)}
    except Exception as error:  # runtimes raise what they like, and the others should be measured all the same
        return {**row, "status": f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    return {**row, "status": "ok"}


def _measure_all(
    baselines: Sequence[Baseline], workload: Workload, batches: Sequence[int], threads: int, effort: Effort
) -> list[Row]:
    return [measure_baseline(baseline, workload, batch, threads, effort) for baseline in baselines for batch in batches]


def run_baselines(
    model: str,
    batches: Sequence[int],
    threads: int,
    effort: Effort,
    track: Callable[[str], None],
    run_group: RunGroup | None = None,
) -> list[Row]:
    """A model's rows of all baselines, runtime after runtime in a fresh process each.

    Args:
        model: trained preset or file
        batches: images at once
        threads: of the CPU runtimes
        effort: how long each is measured
        track: told what is measured
        run_group: measures the baselines of one runtime; default: in a fresh process

    Raises:
        ValueError: there is no such model, or a batch or the number of threads is not positive
    """
    if min([*batches, threads], default=0) < 1:
        raise ValueError(f"batches and threads must be at least 1, not {[*batches, threads]!r}")
    workload = load_workload(model, max(batches))
    rows: list[Row] = []
    # Without experts a dense network is the sparse one.
    same = {(b.runtime, b.precision) for b in BASELINES if b.experts == "sparse" and not workload.config.num_experts}
    suite = [b for b in BASELINES if b.experts != "dense" or (b.runtime, b.precision) not in same]
    for name in dict.fromkeys(baseline.runtime for baseline in suite):
        track(f"{model} with {name}")
        group = [baseline for baseline in suite if baseline.runtime == name]
        rows += (run_group or in_fresh_process)(group, workload, batches, threads, effort)
    return rows


def in_fresh_process(
    group: Sequence[Baseline], workload: Workload, batches: Sequence[int], threads: int, effort: Effort
) -> list[Row]:
    """Rows of the baselines of one runtime, whose process may die without ending this one."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure_all, group, workload, batches, threads, effort).result()
    except BrokenProcessPool:
        return [
            {
                "source": "measured",
                "model": workload.config.name,
                "task": workload.task,
                "runtime": b.runtime,
                "device": b.device,
                "precision": b.precision,
                "experts": b.experts,
                "batch": batch,
                "threads": threads,
                "status": "failed: the runtime ended its process",
            }
            for b in group
            for batch in batches
        ]


def differing(rows: Iterable[Row]) -> list[str]:
    """Float32 baselines whose outputs are not the float model's."""
    return [
        f"{row['model']} with {row['runtime']}, {row['experts']} experts, batch {row['batch']}: "
        f"{row['max_abs_difference']:.2g}"
        for row in rows
        if row.get("equal") is False
    ]


def machine() -> dict[str, Any]:
    """What the figures were measured on: processor, how busy it was when this was called, versions."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": cpu_info("model name") or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": versions,
        "gpu": _gpu(),
    }


def _gpu() -> str | None:
    """The card that sessions run on, or None."""
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
