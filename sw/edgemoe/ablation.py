"""``edgemoe ablation``: each technique replaced by its naive form, measured on the RTL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.devices.base import DeviceError
from edgemoe.devices.reference import ReferenceDevice
from edgemoe.devices.sim import SimDevice
from edgemoe_hw.config import AcceleratorConfig
from edgemoe_models import scenes
from edgemoe_models.graph import IntegerGraph

__all__ = ["VARIANTS", "run_ablation"]

#: Options of each variant; the first is the product.
VARIANTS: dict[str, CompilerOptions] = {
    "all techniques": CompilerOptions(),
    "no prefetch (DMA and compute take turns)": CompilerOptions(prefetch=False),
}


def run_ablation(graph: IntegerGraph, config: AcceleratorConfig, track: Callable[[str], None]) -> list[dict[str, Any]]:
    """Cycles and DRAM bytes of one scene and the first task for every variant; all must give equal outputs.

    Raises
    ------
    DeviceError: a variant's outputs differ from the reference
    """
    model = graph.config
    image = scenes.generate_scene(scenes.SPLITS["demo"].start, model.image_height, model.image_width).image
    task = model.tasks[0].name
    rows = []
    with SimDevice(config) as device:
        for name, options in VARIANTS.items():
            track(name)
            bundle = build_bundle(graph, config, options)
            expected = ReferenceDevice().run(bundle, image, task)
            result = device.run(bundle, image, task)
            if (result.outputs != expected.outputs).any():
                raise DeviceError(f"variant {name!r} differs from the integer reference")
            size = result.stats["bytes_read"] + result.stats["bytes_written"]
            rows.append({"variant": name, "cycles": result.stats["cycles"], "dram_bytes": size})
    return rows
