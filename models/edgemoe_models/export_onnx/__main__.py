"""Command line of the QONNX export.

Usage: ``python -m edgemoe_models.export_onnx GRAPH_OR_CHECKPOINT --task T --out FILE.onnx [--check N]``
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe_models.datasets.scenes import SPLITS, generate_scene
from edgemoe_models.graph.file import is_graph_file, read_graph
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.ptq.quantize import QuantizeError, quantize_checkpoint
from edgemoe_models.storage.atomic import write_bytes
from edgemoe_models.storage.tensor_file import TensorFileError, read_header


def load(path: Path) -> IntegerGraph:
    """An integer graph, or a float checkpoint, which is quantized (post-training, on the package's scenes)."""
    try:
        _, metadata = read_header(path)
    except (TensorFileError, OSError) as error:
        raise QuantizeError(f"{path}: not a readable safetensors file ({error})") from None
    return read_graph(path) if is_graph_file(metadata) else quantize_checkpoint(path)


def check(model: Any, graph: IntegerGraph, task: str, count: int, executor: str) -> bool:
    """Compare with the reference on ``count`` held-out scenes, print the result, return whether all is equal."""
    from edgemoe_models.export_onnx.check import compare

    size = graph.config.image_height, graph.config.image_width
    images = np.stack([generate_scene(seed, *size).image for seed in SPLITS["val"][:count]])
    start = time.monotonic()
    result = compare(model, graph, task, images, executor)
    verdict = "equal" if result.is_exact else f"DIFFERENT, by up to {result.largest:g} in {result.worst}"
    print(
        f"{executor} and the integer reference, {len(images)} images, {result.tensors} tensors, "
        f"{result.values} values: {verdict} ({time.monotonic() - start:.1f} s)"
    )
    return result.is_exact


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edgemoe_models.export_onnx",
        description="QONNX export of one task, equal to the integer reference.",
    )
    parser.add_argument("model", type=Path, help="integer graph, or float checkpoint (is quantized)")
    parser.add_argument("--task", required=True, help="whose gates and head to export")
    parser.add_argument("--out", type=Path, required=True, help="file to write (.onnx)")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="compare all tensors of N images")
    parser.add_argument(
        "--executor",
        choices=("onnxruntime", "qonnx"),
        default="onnxruntime",
        help="what runs the check; qonnx, node by node, is slow",
    )
    options = parser.parse_args(arguments)
    if options.check < 0:
        parser.error(f"--check must not be negative, not {options.check}")
    try:
        from edgemoe_models.export_onnx.model import export

        graph = load(options.model)
        model = export(graph, options.task)
        write_bytes(options.out, model.SerializeToString())
        kinds = sum(node.op_type == "Quant" for node in model.graph.node)
        print(
            f"{options.out}: {len(model.graph.node)} nodes, {kinds} of them Quant, "
            f"{options.out.stat().st_size / 1e6:.1f} MB",
            flush=True,
        )
        is_exact = not options.check or check(model, graph, options.task, options.check, options.executor)
    except ModuleNotFoundError as error:
        print(f"export_onnx: {error.name} is not installed; pip install onnx onnxruntime qonnx", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"export_onnx: {error}", file=sys.stderr)
        return 1
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
