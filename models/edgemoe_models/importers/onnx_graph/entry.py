"""From an ONNX file to a float checkpoint of ours, with a report and a check by onnxruntime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe_models import float_reference
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.timm import import_timm
from edgemoe_models.storage.checks import shown

_MOST_ERROR = 1e-4  # relative, of the imported network's outputs to onnxruntime's on random pictures
_PICTURES = 2
_LARGEST = 8 << 30  # bytes


def import_onnx(path: Path, options: ImportOptions) -> Imported:
    """A plain Vision Transformer, recognized by its graph, whoever exported it.

    Raises:
        ImportRefused: it is none, with the first node that has no counterpart; or the extra ``onnx`` is missing, or
            onnxruntime computes something else
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise ImportRefused("reading an ONNX file needs the extra onnx (pip install onnx onnxruntime)") from None
    from edgemoe_models.importers.onnx_graph.assemble import assemble
    from edgemoe_models.importers.onnx_graph.values import Unmapped, View
    from edgemoe_models.importers.onnx_graph.walk import Failure, walk

    model = _read(onnx, path)
    if _is_ours(model):
        return _quantized(model, options)
    walked = walk(model)
    refusals = []
    for name, value in walked.outputs.items():
        if isinstance(value, Failure):
            refusals.append(value.text())
            continue
        if not isinstance(value, View):
            refusals.append(f"the output {shown(name)} does not depend on the picture")
            continue
        try:
            found = assemble(value, walked.height, walked.width)
        except Unmapped as error:
            refusals.append(f"the output {shown(name)}: {error}")
            continue
        imported = import_timm(found.tensors, options, found.facts)
        notes = [f"{walked.mapped} of {walked.nodes} nodes mapped: {', '.join(found.parts)}"]
        if others := [shown(other) for other in walked.outputs if other != name]:
            notes.append(f"the output {shown(name)}; left out: {', '.join(others)}")
        notes.append(_checked(path, name, found, options))
        return dataclasses.replace(imported, notes=(*notes, *imported.notes))
    mapped = f"{walked.mapped} of {walked.nodes} nodes were mapped"
    raise ImportRefused(f"no plain Vision Transformer: {'; '.join(dict.fromkeys(refusals))} ({mapped})")


def _is_ours(model: Any) -> bool:
    """Whether ``edgemoe export`` wrote it."""
    return any(entry.key == "edgemoe.config" for entry in model.metadata_props)


def _quantized(model: Any, options: ImportOptions) -> Imported:
    """The integer graph of a QONNX file of ours.

    Raises:
        ImportRefused: it was changed, or options are for float networks
    """
    from edgemoe_models.export_onnx.read_back import ReadBackError, read_back

    given = [name for name in ("image_height", "image_width", "mean", "std") if getattr(options, name) is not None]
    if given:
        raise ImportRefused(f"it is quantized already: leave --{given[0].replace('_', '-')} out")
    try:
        graph = read_back(model)
    except ReadBackError as error:
        raise ImportRefused(f"no QONNX file as edgemoe export writes it: {error}") from None
    notes = (
        f"all {len(model.graph.node)} nodes are those of edgemoe export: its integer graph, of the task "
        f"{graph.config.tasks[0].name}, is written, bit for bit what the file computes; edgemoe compile takes it",
    )
    return Imported({}, graph.config, notes, graph=graph)


def _read(onnx: Any, path: Path) -> Any:
    """The model with its functions in line and its external data, which must lie beside it."""
    if path.stat().st_size > _LARGEST:
        raise ImportRefused(f"it has {path.stat().st_size:,} bytes, the most is {_LARGEST:,}")
    try:
        model = onnx.load(str(path))
        if model.functions and not _is_ours(model):
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # bytes that are no ONNX file end in any of protobuf's and Python's errors
        raise ImportRefused(f"no readable ONNX file ({str(error).partition(chr(10))[0] or 'damaged'})") from None
    if not model.graph.node:
        raise ImportRefused("no readable ONNX file (it has no nodes)")
    return model


def _checked(path: Path, output: str, found: Any, options: ImportOptions) -> str:
    """Run both on random pictures of the graph's own size.

    Raises:
        ImportRefused: they differ
    """
    try:
        import onnxruntime
    except ImportError:
        return "not checked: onnxruntime is not installed"
    plain = ImportOptions(name=options.name, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    imported = import_timm(found.tensors, plain, found.facts)
    config, (task,) = imported.config, imported.config.tasks
    pictures = np.random.default_rng(0).integers(0, 256, (_PICTURES, config.image_height, config.image_width, 3))
    rows = float_reference.forward(imported.state, config, pictures.astype(np.uint8), task.name)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    kind = {"tensor(double)": np.float64, "tensor(float16)": np.float16}.get(given.type, np.float32)
    worst = 0.0
    for picture, values in zip(pictures, rows, strict=True):
        inputs = (picture / 255).transpose(2, 0, 1)[None].astype(kind)
        wanted = np.asarray(session.run([output], {given.name: inputs})[0], np.float64)
        worst = max(worst, _difference(config, task.name, values, wanted))
    if not worst < _MOST_ERROR:
        raise ImportRefused(
            f"the imported network's outputs are {worst:.1e} (relative) off onnxruntime's: its graph was misread; "
            "please report it"
        )
    return f"checked against onnxruntime on {_PICTURES} random pictures: relative difference {worst:.1e}"


def _difference(config: Any, task: str, rows: Any, wanted: Any) -> float:
    from edgemoe_models.integer.postprocess import arrange

    found = arrange(config, task, rows)
    flat = wanted.reshape(-1, found.size)
    head = config.task(task)
    if len(flat) > 1:  # the whole sequence, of which features are a part
        flat = flat[:1] if head.pool == "cls" else np.asarray([flat.mean(0)])
    if head.kind == "classification" and (flat >= 0).all() and abs(float(flat.sum()) - 1) < 1e-3:  # behind a softmax
        shifted = np.exp(found - found.max())
        found = shifted / shifted.sum()
    return float(np.abs(found - flat[0]).max() / np.abs(flat[0]).max())
