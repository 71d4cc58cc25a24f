"""The clock from which a configuration is faster than others, and what it makes of its hardware."""

import json

import pytest

from edgemoe.boards import load_board
from edgemoe.studies.break_even import (
    break_even_markdown,
    break_even_mhz,
    break_even_tables,
    dsp_counts,
    efficiency,
    efficiency_markdown,
    efficiency_table,
    system_name,
)
from edgemoe.studies.published import PUBLISHED, PUBLISHED_GOPS_PER_DSP

WORKLOADS = {"m3vit-tiny", "deit-tiny"}


def row(model="m3vit-tiny", **more):
    """A simulated row: 2 M cycles at 100 MHz."""
    values = {"source": "simulated", "model": model, "config": "pynq-z2", "expert_bits": 8, "cycles": 2_000_000}
    values |= {"ideal_cycles": 1_500_000, "macs": 500_000_000, "ms": 20.0, "assumed_clock_mhz": 100.0}
    return values | {"dram_gb_per_second": 1.575, "config_hash": "ab"} | more


def test_published_rows_are_complete_and_unique():
    for published in PUBLISHED:
        assert published["workload"] in WORKLOADS and published["ms"] > 0 and published["reference"]
        assert published["batch"] == 1 or published["name"].startswith("Hailo")
    names = [(published["workload"], system_name(published)) for published in PUBLISHED]
    assert len(set(names)) == len(names)
    hailo = {
        (published["name"], published["batch"]): round(1000 / published["ms"])
        for published in PUBLISHED
        if published["name"].startswith("Hailo")
    }
    assert hailo == {
        ("Hailo-8", 1): 70,
        ("Hailo-8", 8): 406,
        ("Hailo-8L", 1): 68,
        ("Hailo-8L", 8): 258,
        ("Hailo-10H", 1): 134,
        ("Hailo-10H", 8): 456,
    }


def test_clock():
    """Cycles over their time; at that clock both take as long."""
    found = break_even_mhz(887_810, "m3vit-tiny")
    assert found == {
        "Edge-MoE, ZCU102": pytest.approx(25.6, abs=0.05),
        "UbiMoE, ZCU102": pytest.approx(34.5, abs=0.05),
        "CoQMoE, ZCU102": pytest.approx(137.2, abs=0.05),
    }
    found = break_even_mhz(912_358, "deit-tiny")
    assert found["Hailo-8, batch 8"] == pytest.approx(370, abs=0.5) and found["Hailo-8"] == pytest.approx(64, abs=0.5)
    assert len(found) == 8 and break_even_mhz(912_358, "m3vit-micro") == {}


def test_share_of_the_limit():
    assert efficiency(row(), {"ab": 250}) == {
        "gops": pytest.approx(50.0),
        "dsp": 250,
        "gops_per_dsp": pytest.approx(0.2),
        "limit_ms": pytest.approx(15.0),
        "share_of_limit": 0.75,
    }
    assert efficiency(row(), {})["gops_per_dsp"] is None


def test_dsp_counts(tmp_path):
    """From make utilisation's file; a missing or damaged one has none."""
    path = tmp_path / "boards.json"
    assert dsp_counts(path) == {}
    board = load_board("pynq-z2")
    path.write_text(json.dumps([{"config_hash": board.config.content_hash, "used": {"dsp": 218}}]))
    assert dsp_counts(path) == {board.config.content_hash: 218}
    for text in ("", "{}", "[1]", '[{"used": {}}]', "[" * 100_000):
        path.write_text(text)
        assert dsp_counts(path) == {}


def test_tables():
    """One for each workload that was simulated; a star where the assumed clock is enough."""
    rows = [
        row(cycles=2_500_000),
        row("deit-tiny", expert_bits=None, config="ultra96v2", assumed_clock_mhz=187.5, cycles=13_358_885),
        row("m3vit-micro"),
    ]
    views = break_even_tables(rows)
    assert [view.title.split()[3] for view in views] == ["m3vit-tiny", "deit-tiny"]
    assert "72*" in views[0].lines()[2] and "97*" in views[0].lines()[2] and "386*" not in views[0].lines()[2]
    assert "10H/8: 2.19 ms (Hailo, batch 8)" in " ".join(views[1].lines())
    table = efficiency_table(rows, {"ab": 250})
    assert "60%" in table.lines()[2] and "0.200" in table.lines()[2] and "1.57" in table.lines()[2]
    for view in (*views, table):
        assert max(map(len, view.lines())) <= 80
    assert break_even_tables([row("m3vit-micro"), {"source": "simulated", "model": "deit-tiny", "ms": 1.0}]) == []


def test_markdown():
    rows = [row(cycles=2_500_000), row("deit-tiny", expert_bits=None)]
    text = break_even_markdown(rows)
    assert "| int8 | `pynq-z2` | 2,500,000 | 100 | **72** | **97** | 386 |" in text
    for block in text.strip().split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    text = efficiency_markdown(rows, {"ab": 250})
    assert "| 75% | 50 | 0.200 |" in text
    assert all(name in text for name in PUBLISHED_GOPS_PER_DSP)
    assert len({line.count("|") for line in text.splitlines()}) == 1
