"""Tables as text: nothing is cut, and all that are printed fit 80 columns with the longest names that there are."""

import pytest

from edgemoe.boards.board import board_names, load_board
from edgemoe.boards.utilisation import utilisation_row
from edgemoe.cli.boards import utilisation_table
from edgemoe.compiler import build_bundle
from edgemoe.reports.cycles import Inference, build_report, summary, table
from edgemoe.reports.tables import TextTable, loss_text, short_name
from edgemoe.studies.ablation import VARIANTS, ablation_table, gelu_table_view
from edgemoe.studies.accuracy import accuracy_table
from edgemoe.studies.baselines.suite import BASELINES
from edgemoe.studies.bench import bench_table
from edgemoe.studies.comparison import PUBLISHED, comparison_table
from edgemoe.studies.expert_load import expert_load_table
from edgemoe.studies.gelu_forms import compare_gelu
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.config import PRESETS as MODELS
from support.random_graphs import random_graph

WIDTH = 80
MODEL = max(MODELS, key=len)
CONFIG = max([*PRESETS, *board_names()], key=len)


def fits(view: TextTable) -> list[str]:
    lines = view.lines()
    assert max(map(len, lines)) <= WIDTH, "\n".join(lines)
    assert not any("…" in line for line in lines)
    return lines


def test_columns_are_aligned_and_whole():
    view = TextTable("title", ["name", ">count", "note"], caption="below\nand below", gap=3)
    view.add("a", "1", "x")
    view.heading("group")
    view.add("longer name", "1,000,000", "")
    assert view.lines() == [
        "title",
        "name              count   note",
        "a                     1   x",
        "group",
        "longer name   1,000,000",
        "below",
        "and below",
    ]
    with pytest.raises(ValueError, match="a row must have 3 cells, not 2"):
        view.add("a", "b")
    assert TextTable("", ["a"]).lines() == ["a"]


def test_short_names():
    assert [short_name(name) for name in ("blocks.11.attention", "heads.depth", "embed")] == [
        "11.attention",
        "depth",
        "embed",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "+0.00"),
        (-0.166, "-0.17"),
        (9.994, "+9.99"),
        (9.996, "+10.0"),
        (-99.94, "-99.9"),
        (99.96, "+100"),
        (512, "+512"),
    ],
)
def test_losses(value, text):
    assert loss_text(value) == text and len(text) <= 5


@pytest.mark.parametrize("config", ["pynq-z2", "zcu102"])
def test_cycles_of_edge_moes_workload(config):
    """m3vit-tiny: twelve blocks, cycles in millions, stalls in hundred thousands."""
    bundle = build_bundle(random_graph(MODELS["m3vit-tiny"]), PRESETS[config])
    task = bundle.tasks["segmentation"]
    stalls = dict.fromkeys(("load", "matmul", "norm", "store", "epilogue", "command"), 0) | {"epilogue": 987_654}
    phases = [{"name": p.name, "cycles": 9_876_543, "busy": 9_876_543, "stalls": stalls} for p in task.phases]
    used = {phase.name: 16 for phase in task.phases if phase.expert_macs}
    stats = {"cycles": 99_876_543, "phases": phases, "experts_used": used, "expert_tokens": {}, "seconds": 1.0}
    stats |= {"bytes_read": 99_000_000, "bytes_written": 1_000_000, "array_busy": 1}
    stats["expert_tokens"] = {phase.name: [0] * 16 for phase in task.phases if phase.expert_macs}
    report = build_report(
        bundle, [Inference("segmentation", "x", stats)], {"segmentation": {"miou": 0.5, "pixel_accuracy": 1}}
    )
    lines = fits(table(report))
    assert "11.attention" in "\n".join(lines) and "epilogue 987,654" in "\n".join(lines)
    assert max(map(len, summary(report))) <= WIDTH
    for exact in (True, False):
        shown = summary(report | {"bit_exact": exact, "mismatches": 123_456_789, "tensors_compared": 12_345})
        assert max(map(len, shown)) <= WIDTH


def test_info_of_the_longest(edgemoe, tmp_path):
    build_bundle(random_graph(MODELS["m3vit-tiny"]), PRESETS["zcu102"]).save(tmp_path / "x.emoe")
    lines = edgemoe.ok("info", tmp_path / "x.emoe").splitlines()
    assert max(map(len, lines)) <= WIDTH and "segmentation" in lines[5]


ROW = {
    "source": "simulated",
    "model": MODEL,
    "config": CONFIG,
    "expert_bits": 4,
    "cycles": 9_876_543,
    "ideal_cycles": 8_765_432,
    "macs": 1_253_700_000,
    "dram_gb_per_second": 12.825,
    "config_hash": "ab",
    "ms": 123.45,
    "roofline_efficiency": 0.9,
    "ideal_efficiency": 0.8,
    "mac_utilisation": 1.0,
    "dram_ratio": 12.345,
    "reloaded_bytes": 123_456_789,
    "sim_cycles_per_second": 1_234_567,
    "assumed_clock_mhz": 187.5,
}


def test_bench():
    fits(bench_table([ROW, ROW | {"expert_bits": None}]))


def test_comparison_of_every_baseline():
    measured = [
        {
            "source": "measured",
            "status": "ok",
            "model": MODEL,
            "runtime": baseline.runtime,
            "precision": baseline.precision,
            "experts": baseline.experts,
            "batch": 64,
            "ms": 1234.56,
            "p90_ms": 999.99,
            "cpu_ms": 999.99,
            "energy_mj": 9999.0,
            "max_abs_difference": 1e-5,
            "equal": False,
        }
        | ({} if baseline.precision == "float32" else {"metrics": {"miou": 0.1}, "float_metrics": {"miou": 0.9}})
        for baseline in BASELINES
    ]
    results = {"accelerator": {"rows": [ROW]}, "baselines": {"rows": measured}, "published": PUBLISHED}
    lines = fits(comparison_table(results))
    assert len(lines) >= len(BASELINES) + len(PUBLISHED) + 4


def test_accuracy():
    metrics = {
        "segmentation": {"miou": 0.9999},
        "depth": {"rmse": 0.6041},
        "normals": {"mean_angle": 99.99},
        "edges": {"f1": 0.5555},
    }
    drop = {"segmentation": -99.99, "depth": 123.4, "normals": -12.34, "edges": 99.9}
    row = {"model": MODEL, "images": 10_000, "metrics": metrics, "drop": drop, "equal": False}
    executors = ("float (NumPy)", "integer reference", "Brevitas", "RTL (Verilated)")
    lines = fits(accuracy_table([row | {"precision": "PTQ W4A8 experts", "executor": name} for name in executors]))
    assert sum(line == "PTQ W4A8 experts" for line in lines) == 1


def test_ablation():
    rows = [
        {
            "technique": variant.technique,
            "variant": variant.name.format(attention_group=8, moe_group=8),
            "cycles": 99_876_543,
            "cycles_ratio": 12.34,
            "dram_bytes": 9_987_654_321,
            "bytes_ratio": 123.45,
        }
        for variant in VARIANTS
    ]
    fits(ablation_table({"model": MODEL, "config": CONFIG, "task": "segmentation", "rows": rows}))
    fits(gelu_table_view({"gelu": compare_gelu(scales=((0.0083, 1),))}))


def test_expert_load():
    load = {
        "busiest_over_mean": 12.34,
        "image_busiest_over_mean": 12.34,
        "entropy_bits": 3.99,
        "unused": list(range(15)),
        "image_unused": 15.0,
        "share": [0.0, 1.0],
    }
    blocks = [{"block": 11, "tasks": {"segmentation": load, "depth": load}}]
    fits(expert_load_table({"model": MODEL, "precision": "QAT W4A8 experts", "images": 10_000, "blocks": blocks}))


def test_utilisation_of_every_board():
    used = {"lut": 94_189, "ff": 70_638, "dsp": 852, "bram36": 525.5, "units": {}}  # of the largest, on all
    result = used | {"cells": {"URAM288": 96}, "tool": "yosys", "seconds": 1.0}
    fits(utilisation_table([utilisation_row(load_board(name), result) for name in board_names()]))
