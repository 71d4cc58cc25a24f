"""The scaling study: points and their hardware, estimates against the RTL, docs/scaling.md against the kept rows."""

import dataclasses

import numpy as np
import pytest
import scaling_record as record
from PIL import Image

from edgemoe.bundle import Joined
from edgemoe.compiler import CompilerOptions
from edgemoe.compiler.fits import shortages
from edgemoe.configs import find_config
from edgemoe.studies.scaling import Comparison, estimate, estimate_point, pays, technique_rows
from edgemoe.studies.scaling_graph import balanced_graph, even_offsets, random_pictures
from edgemoe.studies.scaling_plot import draw_axes, draw_techniques
from edgemoe.studies.scaling_points import ARRAYS, AXES, BASE, Point, hardware, model_of
from edgemoe.studies.scaling_report import scaling_tables
from edgemoe.studies.scaling_rtl import RTL_BASE, RTL_POINTS, changes, rtl_cycles, worst_error
from edgemoe_models.config import PRESETS
from edgemoe_models.integer import reference

#: The largest relative error of an estimate that docs/scaling.md may have, and that of the compiler as it is now.
LARGEST_ERROR, LARGEST_NOW = 0.07, 0.05
SMALL = dataclasses.replace(PRESETS["m3vit-micro"], name="small", depth=2, tasks=PRESETS["m3vit-micro"].tasks[:2])


def points_of_axes() -> list[Point]:
    return [BASE.but(**{axis: value}) for axis, values in AXES.items() for value in values]


def test_the_page_is_of_the_kept_rows():
    """Else: ``python tools/scaling_record.py``."""
    assert record.main(["--check"]) == 0


def test_kept_rows_are_of_all_axes_and_of_this_hardware():
    kept = record.load()
    assert [(row["axis"], row["value"]) for row in kept["axes"]] == [
        (axis, value) for axis, values in AXES.items() for value in values
    ]
    for row in kept["axes"]:
        point = BASE.but(**{row["axis"]: row["value"]})
        assert row["config_hash"] == hardware(point).content_hash, row
        assert row["ideal_cycles"] <= row["cycles"]


def test_the_model_is_right_at_the_points_of_the_rtl():
    rows = record.load()["rtl"]
    assert len(rows) >= 12 and worst_error(rows) <= LARGEST_ERROR and all(row["bit_exact"] for row in rows)
    for row in rows:
        point = RTL_BASE.but(**row["changes"])
        assert point in RTL_POINTS and changes(point) == row["changes"]
        assert row["config_hash"] == hardware(point).content_hash
        assert row["error"] == pytest.approx(row["estimate"] / row["cycles"] - 1, abs=1e-5)
    for axis in AXES:
        assert len({row["changes"].get(axis, getattr(RTL_BASE, axis)) for row in rows}) >= 2, axis


@pytest.mark.parametrize("changed", [{}, {"bandwidth": 4}, {"tokens": 65}], ids=str)
def test_estimates_are_still_those_that_the_rtl_confirmed(changed):
    """What the compiler makes now, against what was measured: else measure again (``make scaling ARGS=--rtl``)."""
    (row,) = [row for row in record.load()["rtl"] if row["changes"] == changed]
    found = estimate_point(RTL_BASE.but(**changed))
    assert found.cycles == pytest.approx(row["cycles"], rel=LARGEST_NOW)


def test_one_build_serves_the_points_of_an_array():
    """All but those of more than 257 tokens."""
    hashes = {hardware(point).content_hash for point in points_of_axes() if point.tokens <= 257}
    assert len(hashes) == len(ARRAYS)


@pytest.mark.parametrize("point", [*points_of_axes(), *RTL_POINTS], ids=lambda point: str(changes(point)))
def test_memories_are_deep_enough(point):
    model, config = model_of(point), hardware(point)
    assert model.num_tokens == point.tokens and config.macs_per_cycle == point.macs
    assert config.dram_bytes_per_cycle == min(point.bandwidth, config.port_bytes_per_cycle)
    assert shortages(model, config, point.options, point.joined) == ()


def test_offsets_spread_tokens_evenly():
    logits = np.random.default_rng(0).normal(np.linspace(0, 3000, 8), 1000, (129, 8)).astype(np.int64)
    assert np.bincount(np.argsort(-logits)[:, :2].ravel(), minlength=8).max() > 80
    load = np.bincount(np.argsort(-(logits + even_offsets(logits, 2)))[:, :2].ravel(), minlength=8)
    assert abs(load - 129 * 2 / 8).max() <= 3


def test_gates_of_random_graphs_are_balanced():
    pictures = random_pictures(SMALL, 2)
    graph = balanced_graph(SMALL, pictures)
    graph.bound_check()
    for task in ("segmentation", "depth"):
        trace = {}
        reference.run_batch(graph, pictures, task, trace)
        load = [len(queue) for queue in trace["blocks.1.queues"]]
        assert sum(load) == 2 * 2 * SMALL.num_tokens and max(load) - min(load) <= 8


@pytest.mark.parametrize("joined", [Joined(("depth",)), Joined(("segmentation", "depth"))], ids=str)
def test_the_rtl_takes_what_was_estimated(joined):
    """Two blocks of m3vit-micro's widths on ``tiny``."""
    config, options = find_config("tiny"), CompilerOptions()
    if len(joined.tasks) > 1:  # its queues have entries for one sequence only
        model = dataclasses.replace(SMALL, image_height=32)
    else:
        model = SMALL
    cycles, exact = rtl_cycles(model, config, options, joined)
    found = estimate(model, config, options, joined)
    assert exact and found.ideal < cycles == pytest.approx(found.cycles, rel=LARGEST_NOW)


def test_estimates_and_limits_of_a_small_model():
    config = find_config("tiny")
    alone = estimate(SMALL, config, CompilerOptions(), Joined(("depth",)))
    assert alone.cycles == alone.apart >= alone.ideal == max(alone.array, alone.memory)
    assert alone.limit == ("array" if alone.array > alone.memory else "memory")
    slow = dataclasses.replace(config, dram_gb_per_second=config.assumed_clock_mhz / 1000 / 4)
    starved = estimate(SMALL, slow, CompilerOptions(), Joined(("depth",)))
    assert starved.limit == "memory" and starved.array == alone.array
    assert starved.memory == pytest.approx(32 * alone.memory, rel=0.01) and starved.cycles > starved.memory


def test_a_preset_has_its_own_array():
    with pytest.raises(ValueError, match="tiny has 64 MACs, not 384"):
        hardware(Point(preset="tiny"))


def test_a_technique_is_compared_with_its_absence():
    comparison = Comparison("int4", "experts", (1, 2), {"expert_bits": 4, "depth": 2}, {"depth": 2})
    (row,) = technique_rows([comparison])
    assert row["technique"] == "int4" and row["values"] == [1, 2] and max(row["ratios"]) <= 1.01


@pytest.mark.parametrize(
    ("paying", "words"),
    [
        ([], "nowhere"),
        ([1, 2, 4, 8], "everywhere"),
        ([4, 8], "from 4 on"),
        ([1, 2], "up to 2"),
        ([2, 4], "2, 4"),
    ],
)
def test_where_it_pays_in_words(paying, words):
    assert pays({"values": [1, 2, 4, 8], "pays": paying}) == words


def test_pictures_and_tables(tmp_path):
    kept = record.load()
    draw_axes(kept["axes"], tmp_path / "axes.png")
    draw_techniques(kept["techniques"], tmp_path / "techniques.png")
    sizes = [Image.open(path).size for path in sorted(tmp_path.iterdir())]
    assert len(sizes) == 2 and all(width == 1650 for width, _ in sizes)
    for results in (kept, {**kept, "rtl": []}):
        tables = scaling_tables(results)
        assert max(len(line) for table in tables for line in table.lines()) <= 80
    assert len(tables) == 2  # without rows of the RTL
