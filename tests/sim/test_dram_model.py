"""The DRAM model itself, behind the control plane: bandwidth, split bursts, few outstanding ones, refreshes, errors."""

from dataclasses import replace

import numpy as np
import pytest

from edgemoe_hw.spec.isa import Engine, Memory
from edgemoe_hw.spec.memories import slice_beats
from edgemoe_hw.spec.regs import ErrorCode
from edgemoe_sim.dram import DRAM_MODELS, DramModel
from edgemoe_sim.verilated import VerilatedModel
from support.control_bench import SMALL, SMALL_WIDE, assemble, loaded, stored
from support.control_programs import (
    OUTPUT,
    WEIGHTS,
    after,
    execute,
    expect_error,
    expect_recovery,
    load,
    make,
    memory_slices,
    start,
    store,
)

CONFIGS = [pytest.param(SMALL, id="one-master"), pytest.param(SMALL_WIDE, id="two-masters")]
LOADS = 60


def limited(config, share):
    """The configuration with a DRAM that gives a share of what its ports take."""
    return replace(config, dram_gb_per_second=share * config.port_bytes_per_cycle * config.assumed_clock_mhz / 1000)


def load_cycles(config, dram_model="plain", stall=0.0, seed=0):
    """Cycles of many loads of whole weight memories, and their bytes and the program's."""
    commands = [load(Memory.WEIGHT, rows=16, offset=i * 0x800) for i in range(LOADS)]
    with make(config, seed, stall, dram_model) as model:
        execute(model, commands)
        return model.read_reg("CYCLES"), sum(model.bus_bytes()[0])


@pytest.mark.parametrize("share", [0.25, 0.5, 0.656, 0.984])
@pytest.mark.parametrize("config", CONFIGS)
def test_bandwidth(config, share):
    """Bytes a cycle are what the DRAM gives, fractions too, whatever the number of masters."""
    config = limited(config, share)
    cycles, size = load_cycles(config)
    least = size / config.dram_bytes_per_cycle
    # A DRAM that was idle before has four cycles of the ports ready.
    assert least - 4 / share <= cycles <= 1.02 * least + 200


@pytest.mark.parametrize("config", CONFIGS)
def test_a_dram_as_fast_as_the_ports_changes_nothing(config):
    assert load_cycles(limited(config, 1.0)) == load_cycles(limited(config, 3.0)) == load_cycles(config)


def test_a_faster_clock_brings_no_faster_dram():
    """The same GB/s at twice the clock: half the bytes a cycle."""
    config = limited(SMALL_WIDE, 0.8)
    slow, _ = load_cycles(config)
    fast, _ = load_cycles(replace(config, assumed_clock_mhz=2 * config.assumed_clock_mhz))
    assert fast == pytest.approx(2 * slow, rel=0.02)


def test_reads_and_writes_share_it():
    """Loads and stores at the same time take as long as their bytes together."""
    config = limited(SMALL, 0.5)
    commands = [load(Memory.WEIGHT, rows=16), *(store(rows=200) for _ in range(10))]
    commands += [load(Memory.WEIGHT, rows=16, offset=i * 0x400) for i in range(40)]
    with make(config) as model:
        execute(model, commands)
        size = sum(map(sum, model.bus_bytes()))
        least = size / config.dram_bytes_per_cycle
        assert least <= model.read_reg("CYCLES") <= 1.1 * least


@pytest.mark.parametrize("config", CONFIGS)
def test_split_bursts(config):
    """Bursts of 16 beats cost next to nothing while enough of them are on their way, and a latency each if not."""
    plain, _ = load_cycles(config)
    axi3, _ = load_cycles(config, "axi3")
    assert plain <= axi3 <= 1.03 * plain
    one, _ = load_cycles(config, DramModel(burst_beats=16, outstanding=1))
    parts = LOADS * 16 * slice_beats(config)[Memory.WEIGHT] // 16
    assert one >= parts * (config.dram_latency + 16)


@pytest.mark.parametrize("config", CONFIGS)
def test_refreshes(config):
    """Nothing moves for 350 ns of every 7.8 us, and nothing more is lost."""
    axi3, _ = load_cycles(config, "axi3")
    refresh, _ = load_cycles(config, "refresh")
    assert refresh == pytest.approx(axi3 / (1 - 350 / 7800), rel=0.02)


@pytest.mark.parametrize("model", DRAM_MODELS)
@pytest.mark.parametrize("config", CONFIGS)
def test_data(config, model):
    """Every byte of loads and stores, with a DRAM that is slower than the ports; repeatable."""
    config = limited(config, 0.7)
    rows = 150
    commands = [
        load(Memory.RESIDUAL, row=3, rows=rows, offset=0x800),
        store(after(Engine.LOAD), row=3, rows=rows, offset=0x100),
        load(Memory.WEIGHT, row=1, rows=15, offset=0x20),
        store(after(Engine.LOAD), row=70, rows=90, offset=0x3000),
    ]
    cycles = []
    for _ in range(2):
        with make(config, 7, dram_model=model) as simulated:
            before = simulated.dram.copy()
            execute(simulated, commands)
            cycles.append(simulated.read_reg("CYCLES"))
            for command, _ in (commands[0], commands[2]):
                for master, part in enumerate(memory_slices(simulated, command.memory)):
                    expected = loaded(config, before, command, WEIGHTS, master)
                    assert np.array_equal(part[command.row : command.row + command.rows], expected)
            slices = memory_slices(simulated, Memory.RESIDUAL)
            for command, _ in (commands[1], commands[3]):
                expected = stored(config, slices, command.row, command.rows)
                assert np.array_equal(simulated.dram[OUTPUT + command.offset :][: expected.size], expected)
    assert cycles[0] == cycles[1]


@pytest.mark.parametrize(("kind", "code"), [("read_error", ErrorCode.READ_BUS), ("write_error", ErrorCode.WRITE_BUS)])
def test_an_error_in_one_part_of_a_split_burst(kind, code):
    """It is the error of the whole burst, and the accelerator works on afterwards."""
    with make(SMALL, dram_model="axi3") as model:
        command = load(Memory.RESIDUAL, rows=200) if kind == "read_error" else store(rows=200)
        address = (WEIGHTS if kind == "read_error" else OUTPUT) + 8 * 40  # in the third part
        model.inject(kind, (address, address + 8))
        start(model, assemble(SMALL, [command]))
        expect_error(model, code, 1)
        model.inject(kind, None)
        expect_recovery(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"burst_beats": 0}, "burst_beats must be between 1 and 256, not 0"),
        ({"burst_beats": 257}, "burst_beats must be between 1 and 256, not 257"),
        ({"outstanding": 65}, "outstanding must be between 1 and 64, not 65"),
        ({"refresh_ns": 1.0}, r"refresh_ns must be at most half of refresh_period_ns \(0\), not 1.0"),
        ({"refresh_ns": -1.0, "refresh_period_ns": 10.0}, "refresh_ns must be at most half"),
        ({"stall": 1.0}, "stall must be at least 0 and below 1, not 1.0"),
    ],
)
def test_refusals(values, message):
    with pytest.raises(ValueError, match=message):
        DramModel(**values)


def test_names():
    assert list(DRAM_MODELS) == ["plain", "axi3", "refresh", "worst"]
    with pytest.raises(ValueError, match="dram_model must be one of plain, axi3, refresh, worst, not 'ideal'"):
        VerilatedModel(SMALL, dram_model="ideal")
