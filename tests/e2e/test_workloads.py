"""The reference workloads on the large configurations, whole inferences on RTL: exact, efficient, few DRAM bytes."""

import pytest

from edgemoe.compiler import build_bundle
from edgemoe.reports.cycles import Inference, build_report
from edgemoe.runtime.reference_device import ReferenceDevice
from edgemoe.runtime.verify import SimDevice
from edgemoe.workloads import load_graph
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.random_weights import random_images

pytestmark = pytest.mark.slow  # simulators of the large configurations take minutes to build

#: By model, configuration and bits of the experts' weights: least bound / cycles and most DRAM bytes / lower bound.
#: deit-tiny's hidden rows do not fit pynq-z2: MLP weights come twice. Parameters weigh more beside int4 weights.
LIMITS = {
    ("m3vit-tiny", "pynq-z2", 8): (0.80, 1.05),
    ("m3vit-tiny", "zcu102", 8): (0.80, 1.05),
    ("m3vit-tiny", "pynq-z2", 4): (0.80, 1.07),
    ("m3vit-tiny", "zcu102", 4): (0.80, 1.07),
    ("deit-tiny", "pynq-z2", 8): (0.80, 1.70),
    ("deit-tiny", "zcu102", 8): (0.80, 1.05),
}


@pytest.mark.parametrize(("model", "config", "expert_bits"), LIMITS)
def test_workload(model, config, expert_bits, tmp_path):
    graph = load_graph(model, tmp_path, expert_bits=expert_bits)
    bundle = build_bundle(graph, PRESETS[config])
    image = random_images(graph.config, 1, seed=3)[0]
    task = graph.config.tasks[0].name
    expected = ReferenceDevice().run(bundle, image, task).stats["trace"]
    device = SimDevice(PRESETS[config])
    try:
        stats = device.run(bundle, image, task, expected=expected).stats
    finally:
        device.close()
    report = build_report(bundle, [Inference(task, "random", stats)], {}, [stats["comparison"]])
    assert report["bit_exact"] is True, stats["comparison"].first_mismatch
    assert report["tensors_compared"] > 100
    efficiency, traffic = LIMITS[model, config, expert_bits]
    assert report["roofline_efficiency"] >= efficiency
    moved = report["dram_bytes_read"] + report["dram_bytes_written"]
    assert moved <= traffic * report["dram_lower_bound_bytes"]
    if not graph.config.num_experts:  # which experts are used, the analytic model cannot know
        for layer in report["layers"][:-1]:
            assert layer["cycles"] == pytest.approx(layer["estimated_cycles"], rel=0.1), layer["name"]
