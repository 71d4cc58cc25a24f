"""``edgemoe run``: image files through a bundle's tasks on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.devices.reference import ReferenceDevice
from edgemoe.pictures import read_image, save_picture
from edgemoe.report import Inference, build_report, save_report
from edgemoe_models.integer.postprocess import decode_output, postprocess

__all__ = ["run_images"]


def run_images(bundle: Bundle, paths: Sequence[Path], device: str, tasks: Sequence[str], out: Path, trace: bool,
               track: Callable[[float], None], waves: tuple[Path, int, int | None] | None = None,
               building: Callable[[str, float], None] | None = None) -> bool:
    """Run every image and task; writes raw outputs, pictures and, on ``sim``, ``report.json`` to ``out``.

    ``waves``: file, first and last command of the waveforms of the first inference on ``sim``. ``building`` is told how
    far the build of the simulator is.

    Returns False when tensors were compared and differ.
    """
    names = [bundle.task(name).name for name in tasks] or list(bundle.tasks)
    images = {path: read_image(path, bundle.model) for path in paths}
    reference = ReferenceDevice()
    graph = reference.graph(bundle)
    runs: list[Inference] = []
    comparisons = []
    simulated = None
    if device == "sim":
        from edgemoe.devices.sim import SimDevice, Waves
        simulated = SimDevice(bundle.config, waves=None if waves is None else Waves(*waves))
        if building is not None:
            simulated.build(building)
    out.mkdir(parents=True, exist_ok=True)
    total, done = len(images) * len(names), 0
    for path, image in images.items():
        for name in names:
            if simulated is None:
                result = reference.run(bundle, image, name)
            else:
                expected = reference.run(bundle, image, name).stats["trace"] if trace else None
                result = simulated.run(bundle, image, name, expected=expected)
                runs.append(Inference(name, path.name, result.stats))
                comparisons += [result.stats["comparison"]] if trace else []
            np.save(out / f"{path.stem}-{name}.npy", result.outputs)
            task = bundle.model.task(name)
            output = postprocess(bundle.model, name, decode_output(graph, name, result.outputs))
            if task.is_dense:
                save_picture(out / f"{path.stem}-{name}.png", task.kind, image, output)
            done += 1
            track(done / total)
    if simulated is not None:
        simulated.close()
        save_report(build_report(bundle, runs, {}, comparisons), out / "report.json")
    return all(comparison.mismatches == 0 for comparison in comparisons)
