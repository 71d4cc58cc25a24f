"""No board assumes a clock above the estimate that is recorded of its configuration."""

import json
from pathlib import Path

import pytest

from edgemoe.boards.board import board_names, load_board
from edgemoe.boards.timing.nets import NetModel, grade_of

RECORD = json.loads((Path(__file__).parents[2] / "docs" / "measurements" / "timing.json").read_text(encoding="utf-8"))


def test_every_board_was_timed():
    assert set(RECORD) == set(board_names())
    for name, row in RECORD.items():
        assert row["config_hash"] == load_board(name).config.content_hash, f"run tools/timing_record.py {name}"


def test_assumed_clocks_are_not_above_the_estimates():
    """A row of another configuration than the board's says nothing about it."""
    for name, row in RECORD.items():
        board = load_board(name)
        assert row["fmax_mhz"] == pytest.approx(1000 / row["period_ns"], abs=0.1)
        if (row["config_hash"], row["part"]) == (board.config.content_hash, board.part):
            assert board.clock_mhz <= row["fmax_mhz"], f"run tools/timing_record.py {name}, or lower its clock_mhz"


def test_rows_are_of_the_delays_that_there_are_now():
    for name, row in RECORD.items():
        model = row["net_model"]
        assert (model["base"], model["growth"]) == (NetModel().base, NetModel().growth), name
        assert model["factor"] == grade_of(load_board(name).device.family, row["part"]).factor, name
