"""bench.json's sections, its table and its picture, and ``edgemoe bench``."""

import json

import pytest
from PIL import Image

from edgemoe.cli import bench as bench_command
from edgemoe.studies import comparison
from edgemoe.studies.baselines import suite
from edgemoe.studies.comparison import (
    PUBLISHED,
    comparison_table,
    entries,
    load_results,
    save_results,
    unavailable,
)
from edgemoe.studies.comparison_plot import draw_comparison

SIMULATED = {
    "source": "simulated",
    "model": "m3vit-micro",
    "config": "pynq-z2",
    "expert_bits": 8,
    "ms": 4.3,
    "assumed_clock_mhz": 100.0,
}
MEASURED = {
    "source": "measured",
    "model": "m3vit-micro",
    "task": "segmentation",
    "runtime": "ONNX Runtime",
    "device": "cpu",
    "precision": "float32",
    "experts": "sparse",
    "batch": 1,
    "threads": 1,
    "status": "ok",
    "max_abs_difference": 2e-5,
    "equal": True,
    "ms": 123.4,
    "p90_ms": 234.5,
    "cpu_ms": 99.5,
    "energy_mj": None,
    "energy": "not measured: no counters",
}
INT8 = {
    **MEASURED,
    "precision": "int8",
    "batch": 8,
    "metrics": {"miou": 0.75},
    "float_metrics": {"miou": 0.76},
    "energy_mj": 21.4,
}
ABSENT = {**MEASURED, "runtime": "OpenVINO", "status": "not installed: openvino"}


@pytest.fixture
def results():
    return {
        "accelerator": {"rows": [SIMULATED]},
        "baselines": {"machine": {"cpu": "test CPU", "load_average": 0.5}, "rows": [MEASURED, INT8, ABSENT]},
        "published": PUBLISHED,
        "host_overhead_ms": {"m3vit-micro": {"segmentation": 0.1}},
    }


def test_sections_survive_and_other_formats_do_not(results, tmp_path):
    path = tmp_path / "folder" / "bench.json"
    save_results(results, path)
    assert load_results(path) == results
    damaged = json.loads(path.read_text())
    damaged["accelerator"] = {"rows": [{"model": 1}]}
    for text in ("[]", "{}", "not JSON", "[" * 100_000, json.dumps(damaged), json.dumps(damaged | {"accelerator": 1})):
        path.write_text(text)
        assert load_results(path) == {
            "accelerator": None,
            "baselines": None,
            "published": PUBLISHED,
            "host_overhead_ms": None,
        }


def test_table_has_every_figure_in_80_columns(results):
    lines = comparison_table(results).lines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for part in (
        "pynq-z2, 100 MHz",
        "4.30",
        "123.4",
        "234.5",
        "2e-05",
        "miou -0.010",
        "99.50",
        "21",
        "504",
        "296",
        "64",
        "2305.18691",
        "ASSUMED",
    ):
        assert part in text, part


def test_what_is_missing_is_said_once(results):
    assert unavailable(results) == [
        "OpenVINO, float32: not installed: openvino",
        "energy, cpu: not measured: no counters",
    ]


def test_published_energy_is_power_times_time(results):
    figures = {entry.where: (entry.ms, entry.millijoules) for entry in entries(results) if entry.kind == "published"}
    assert figures["Edge-MoE, ZCU102"] == (34.64, pytest.approx(34.64 * 14.54))


def test_picture(results, tmp_path):
    path = tmp_path / "bench.png"
    draw_comparison(results, path)
    with Image.open(path) as image:
        assert {colour for _, colour in image.convert("RGB").getcolors(1 << 16)} >= {
            (0x00, 0x72, 0xB2),
            (0xE6, 0x9F, 0x00),
            (0x00, 0x9E, 0x73),
        }
    with pytest.raises(ValueError, match="nothing was measured at batch 1"):
        draw_comparison({**results, "accelerator": None, "baselines": None}, path)


def test_command_keeps_the_other_section(edgemoe, monkeypatch, results, tmp_path):
    save_results(results, tmp_path / "bench.json")
    monkeypatch.setattr(
        suite,
        "run_baselines",
        lambda model, batches, threads, effort, track: [
            {**MEASURED, "model": model, "batch": batches[0], "threads": threads, "ms": 1.0, "equal": False}
        ],
    )
    monkeypatch.setattr(bench_command, "host_overhead", lambda: {"m3vit-micro": {"depth": 0.25}})
    arguments = "bench --only baselines --model m3vit-micro --batch 1 --threads 2".split()
    # The outputs differ, which is an error once everything is written.
    edgemoe(*arguments, "--out", tmp_path).failed("outputs differ from the float model")
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["accelerator"] == {"rows": [SIMULATED]} and written["host_overhead_ms"]["m3vit-micro"] == {
        "depth": 0.25
    }
    assert [(row["threads"], row["ms"]) for row in written["baselines"]["rows"]] == [(2, 1.0)]
    assert written["baselines"]["machine"]["cores"] >= 1 and (tmp_path / "bench.png").is_file()
    assert comparison.load_results(tmp_path / "bench.json") == written


def test_command_refuses_an_unknown_section(edgemoe):
    edgemoe("bench", "--only", "gpu").refused("edgemoe: --only must be accelerator or baselines, not 'gpu'\n")


def test_commands_refuse_an_unknown_dram(edgemoe, tmp_path):
    message = "edgemoe: dram_model must be one of plain, axi3, refresh, worst, not 'ideal'\n"
    for command in ("bench --only accelerator", "sim"):
        edgemoe(*command.split(), "--dram", "ideal", "--out", tmp_path).refused(message)
