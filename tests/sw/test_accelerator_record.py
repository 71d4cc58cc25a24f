"""The tables of docs/benchmarks.md and docs/boards.md are of what was measured, on the hardware that there is now."""

import accelerator_record as record
import pytest

from edgemoe.boards.board import board_names, configuration_names
from edgemoe.configs import find_config

ROW = {
    **{"source": "simulated", "model": "m3vit-tiny", "config": "pynq-z2", "expert_bits": 8, "dram_model": "plain"},
    **{"cycles": 2_000_000, "ms": 14.0, "assumed_clock_mhz": 142.86, "dram_gb_per_second": 1.575, "macs": 785_900_000},
    **{"ideal_efficiency": 0.8, "roofline_efficiency": 0.9, "dram_ratio": 1.0, "ideal_cycles": 1_600_000},
    **{"config_hash": find_config("pynq-z2").content_hash},
}


def test_pages_are_of_the_kept_rows():
    """Else: ``python tools/accelerator_record.py``."""
    assert record.main(["--check"]) == 0


def test_every_board_was_mapped_and_fits_with_room():
    """The limits that the presets are sized by: 85 % of the LUTs, four block RAMs left."""
    boards = record.load()[1]
    assert set(board_names()) <= {row["board"] for row in boards} <= set(configuration_names())
    for row in boards:
        assert row["fits"] and row["used"]["lut"] <= 0.85 * row["available"]["lut"], row["board"]
        assert row["used"]["bram36"] <= row["available"]["bram36"] - 4, row["board"]


def test_new_rows_replace_those_that_they_repeat():
    axi3 = {**ROW, "dram_model": "axi3", "cycles": 2_010_000, "seconds": 3.0}
    int4 = {**ROW, "expert_bits": 4, "cycles": 1_500_000}
    rows = record.add([ROW, int4], [axi3, {**ROW, "cycles": 1_900_000}])
    assert [(row["expert_bits"], row["dram_model"], row["cycles"]) for row in rows] == [
        (8, "plain", 1_900_000),
        (8, "axi3", 2_010_000),
        (4, "plain", 1_500_000),
    ]
    assert "seconds" not in rows[1]


def test_rows_of_both_isas_agree():
    """Rows of ISA 3 stay in the tables because the same commands take the same cycles: those measured again show it.

    The integer graphs are other ones, so that a few tokens take other routes.
    """
    again = [row for row in record.load()[0] if "earlier_cycles" in row]
    assert {row["model"] for row in again} >= {"m3vit-tiny", "deit-tiny"}
    for row in again:
        assert row["cycles"] == pytest.approx(row["earlier_cycles"], rel=2e-3), (row["model"], row["config"])


def test_a_row_of_the_isa_before_is_marked_and_replaced():
    old = {**ROW, "config_hash": find_config("pynq-z2").content_hash_of(3)}
    assert record.stale([old]) == [] and record.is_earlier(old) and not record.is_earlier(ROW)
    (row,) = record.add([old], [{**ROW, "cycles": 2_000_100}])
    assert (row["cycles"], row["earlier_cycles"]) == (2_000_100, 2_000_000)
    assert record.stale([{**ROW, "config_hash": find_config("pynq-z2").content_hash_of(2)}]) == [
        "m3vit-tiny on pynq-z2"
    ]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, []),
        ({"config": "pynq-z2-at-150", "assumed_clock_mhz": 150.0}, []),
        ({"config_hash": "0"}, ["m3vit-tiny on pynq-z2"]),
        ({"assumed_clock_mhz": 100.0}, ["m3vit-tiny on pynq-z2"]),
    ],
)
def test_rows_of_other_hardware_are_found(change, wrong):
    assert record.stale([{**ROW, **change}]) == wrong


def test_a_page_without_a_place_is_refused():
    assert record.update("a\n<!-- x table -->\nold\n<!-- end of x table -->\nb", "x", "new").splitlines()[2] == "new"
    with pytest.raises(ValueError, match="one place '<!-- x table -->', not 0"):
        record.update("no place", "x", "new")
