"""The block design's ways to the memory: SmartConnects where ports are AXI3, and as many ports as there are."""

import dataclasses
import re

import pytest

from edgemoe.boards import load_board


def test_a_smartconnect_that_narrows_the_way_to_the_memory(build):
    """That is slow, not wrong: a warning, which names it."""
    run = build(load_board("pynq-z2"), converted=2)
    assert run.code == 0
    assert "edgemoe: warning: memory0/M00_AXI lets only 2 reads through" in run.output
    assert "warning" not in build(load_board("pynq-z2"), converted=8).output
    assert "warning" not in build(load_board("pynq-z2"), converted="").output  # not known


def test_axi3_is_not_connected_directly(build, monkeypatch):
    board = load_board("pynq-z2")
    family = dataclasses.replace(board.family, hp_is_axi4=True)
    run = build(dataclasses.replace(board, family=family))
    assert run.code == 1 and "AXI4 and AXI3" in run.output


@pytest.mark.parametrize("name", ["pynq-z2", "zcu102"])
def test_four_ports(build, name):
    """All that a processing system has: each a master's own."""
    board = load_board(name)
    wide = dataclasses.replace(board.config, lanes_k=64, lanes_n=64, epilogue_lanes=32, norm_lanes=16, axi_masters=4)
    board = dataclasses.replace(board, hp_ports=4, config=wide)
    run = build(board)
    assert run.code == 0, run.output
    to_memory = {slave for _, slave in run.buses if slave.startswith("ps/S_AXI_HP")}
    assert len(to_memory) == 4
    for i in range(4):
        assert run.addresses(f"edgemoe_0/m{i}_axi")
    settings = run.settings["ps"]
    on = [name for name, value in settings.items() if re.search(r"S_AXI_(HP\d|GP[2-5])$", name) and value == "1"]
    assert len(on) == 4
    assert sum(name.endswith("DATA_WIDTH") and value == str(board.hp_bits) for name, value in settings.items()) == 4


@pytest.mark.parametrize(("found", "warned"), [(2, True), (7, True), (8, False), (16, False), ("", False)])
def test_what_a_smartconnect_lets_through(build, found, warned):
    """Known after validation; the bitstream is made all the same, and the loss is said."""
    run = build(load_board("pynq-z2"), converted=found)
    assert run.code == 0, run.output
    assert (f"memory0/M00_AXI lets only {found} reads through at a time" in run.output) == warned
