"""The control plane's bench on the C++ DRAM model: how its programs are written, started and judged."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, Engine, Header, Load, Memory, Store, waits
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.regs import ErrorCode
from edgemoe_sim.dram import DramModel
from edgemoe_sim.verilated import ProgramError, VerilatedModel
from support.control_bench import (
    Command,
    assemble,
    bench_verilog,
    loaded,
    stored,
)

__all__ = [
    "DRAM_BYTES",
    "INPUT",
    "LIMIT",
    "OUTPUT",
    "PROGRAM",
    "WEIGHTS",
    "after",
    "execute",
    "expect_error",
    "expect_recovery",
    "load",
    "make",
    "memory_slices",
    "start",
    "store",
]

DRAM_BYTES = 1 << 20
PROGRAM, WEIGHTS, INPUT, OUTPUT = 0x0, 0x1_0000, 0x6_0000, 0xC_0000
LIMIT = 200_000


def make(
    config: AcceleratorConfig, seed: int = 0, stall: float = 0.0, dram_model: str | DramModel = "plain"
) -> VerilatedModel:
    model = VerilatedModel(
        config, verilog=bench_verilog(config), dram_bytes=DRAM_BYTES, dram_model=dram_model, stall=stall, seed=seed
    )
    model.dram[:] = np.random.default_rng(seed).integers(0, 256, DRAM_BYTES)
    return model


def start(
    model: VerilatedModel,
    program: np.ndarray,
    commands: int | None = None,
    watchdog: int = 5000,
    sizes: Mapping[Base, int] = MappingProxyType({}),
) -> None:
    model.dram[PROGRAM : PROGRAM + len(program)] = program
    model.start(
        PROGRAM,
        len(program) // 64 if commands is None else commands,
        weights=WEIGHTS,
        input=INPUT,
        output=OUTPUT,
        watchdog=watchdog,
        sizes=sizes,
    )


def execute(model: VerilatedModel, commands: list[Command], **begin: int) -> None:
    start(model, assemble(model.config, commands, **begin))
    model.finish(LIMIT)


def load(memory: Memory, header: Header | None = None, **fields: Any) -> Command:
    return Load(**{"memory": memory, "plane_stride": 0x1000, "rows": 1} | fields), header or Header()


def store(header: Header | None = None, **fields: Any) -> Command:
    return Store(**{"base": Base.OUTPUT, "rows": 1} | fields), header or Header()


def after(engine: Engine, count: int = 1) -> Header:
    return Header(waits=waits({engine: count}))


def memory_slices(model: VerilatedModel, memory: Memory) -> list[np.ndarray]:
    """Each master's slice: uint8[depth, beats * axi_bytes]."""
    beats = slice_beats(model.config)[memory]
    slices = []
    for master in range(model.config.load_masters(memory.name)):
        raw = model.peek(f"load_{memory.name.lower()}_m{master}")
        padded = raw.reshape(memory_depths(model.config)[memory], -1, model.config.axi_bytes)
        slices.append(padded[:, :beats].reshape(len(padded), -1))
    return slices


def expect_error(model: VerilatedModel, code: ErrorCode, command: int) -> None:
    with pytest.raises(ProgramError) as caught:
        model.finish(LIMIT)
    assert (caught.value.code, caught.value.command) == (code, command)
    assert model.read_field("STATUS", "done") == 0


def expect_recovery(model: VerilatedModel) -> None:
    """After a soft reset, a program runs to its end and moves the right data."""
    model.soft_reset()
    assert model.read_reg("STATUS") == 0 and model.read_reg("ERROR_CODE") == 0
    command = load(Memory.RESIDUAL, offset=0x800, rows=40, row=7)
    execute(model, [command, store(after(Engine.LOAD), row=7, rows=40)])
    for master, part in enumerate(memory_slices(model, Memory.RESIDUAL)):
        assert np.array_equal(part[7:47], loaded(model.config, model.dram, command[0], WEIGHTS, master))
    expected = stored(model.config, memory_slices(model, Memory.RESIDUAL), 7, 40)
    assert np.array_equal(model.dram[OUTPUT:][: len(expected)], expected)
