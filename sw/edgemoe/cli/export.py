"""``edgemoe export``: one task of an integer graph as QONNX, equal to the integer reference."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from edgemoe.cli.options import Model
from edgemoe.cli.output import say, working
from edgemoe.cli.outputs import output_file
from edgemoe.errors import DeviceError
from edgemoe.extras import require
from edgemoe.workloads import load_graph
from edgemoe_models.datasets.scenes import SPLITS, generate_scene
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.storage.atomic import write_bytes

if TYPE_CHECKING:
    from edgemoe_models.export_onnx.check import Comparison

__all__ = ["command"]

_EXECUTORS = ("onnxruntime", "qonnx")


def command(
    out: Annotated[Path, typer.Option(help="file to write (.onnx)", show_default=False)],
    task: Annotated[str, typer.Option(help="whose gates and head to export", show_default=False)],
    model: Model = "m3vit-micro-w8a8",
    check: Annotated[int, typer.Option(min=0, help="compare all tensors of so many images")] = 0,
    executor: Annotated[
        str, typer.Option(help=f"what runs the check, one of {', '.join(_EXECUTORS)}; qonnx, node by node, is slow")
    ] = _EXECUTORS[0],
) -> None:
    """Export one task of an integer graph as QONNX; a float checkpoint is quantized first."""
    require("edgemoe export", "onnx")
    if executor not in _EXECUTORS:
        raise ValueError(f"executor must be one of {', '.join(_EXECUTORS)}, not {executor!r}")
    output_file(out, [Path(model)])
    with working(f"exporting {model}") as work:
        from edgemoe_models.export_onnx.model import export

        graph = load_graph(model)
        exported = export(graph, task)
        write_bytes(out, exported.SerializeToString())
        begin = time.monotonic()
        result = _check(exported, graph, task, check, executor, work.step) if check else None
        seconds = time.monotonic() - begin
    kinds = sum(node.op_type == "Quant" for node in exported.graph.node)
    size = out.stat().st_size / 1e6
    say(f"{out}: {len(exported.graph.node)} nodes, {kinds} of them Quant, {size:.1f} MB")
    if result is not None:
        verdict = "equal" if result.is_exact else f"DIFFERENT, by up to {result.largest:g} in {result.worst}"
        say(
            f"{executor} and the integer reference, {check} images, {result.tensors} tensors, "
            f"{result.values} values: {verdict} ({seconds:.1f} s)"
        )
        if not result.is_exact:
            raise DeviceError(f"{out} differs from the integer reference in {result.worst}")


def _check(exported: Any, graph: IntegerGraph, task: str, count: int, executor: str, step: Any) -> Comparison:
    """Compare with the reference on ``count`` held-out scenes."""
    from edgemoe_models.export_onnx.check import compare

    step(f"comparing {count} images under {executor}")
    size = graph.config.image_height, graph.config.image_width
    images = np.stack([generate_scene(seed, *size).image for seed in SPLITS["val"][:count]])
    return compare(exported, graph, task, images, executor)
