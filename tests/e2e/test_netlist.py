"""The accelerator as Yosys maps it to a 7 series FPGA, against the RTL: same cycles, bytes, and reference outputs."""

from pathlib import Path

import numpy as np
import pytest

from edgemoe.boards.synth import run_yosys, yosys_share
from edgemoe.compiler import build_bundle
from edgemoe.layout import align, gather_outputs, pack_patches
from edgemoe_hw.bus.bursts import AXI3_BEATS
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.top import Accelerator
from edgemoe_hw.verilog import generate, generate_rtlil
from edgemoe_models.model_image import patchify
from edgemoe_sim.netlist import simulated_netlist
from edgemoe_sim.verilated import VerilatedModel
from support.random_graphs import random_graph, smallest_model
from support.reference import expect

CONFIG = PRESETS["tiny"]
MODEL = smallest_model()


def mapped(folder: Path) -> str:
    """Verilog of the netlist, with bursts that AXI3 has."""
    (folder / "a.rtlil").write_text(generate_rtlil(CONFIG, Accelerator(CONFIG, AXI3_BEATS)))
    run_yosys(folder, "a", "xc7", lambda step: None, "write_verilog -noattr a.v")
    return (folder / "a.v").read_text()


def inferences(bundle, verilog: str, named: bool, stall: float):
    """Every task of two images: cycles, bytes on the bus, the output region; outputs are compared here."""
    weights = bundle.data.size
    source = align(weights, 4096)
    output = align(source + bundle.input_bytes, 4096)
    place = align(output + max(task.output_bytes for task in bundle.tasks.values()), 4096)
    found = []
    with VerilatedModel(CONFIG, verilog=verilog, named=named, dram_bytes=1 << 22, stall=stall, quiet=True) as model:
        model.dram[:weights] = bundle.data
        for seed, task in enumerate([*bundle.tasks] * 2):
            info = bundle.task(task)
            image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
            for address, content in (
                (place, info.program),
                (source, pack_patches(CONFIG, patchify(image, bundle.model.patch))),
            ):
                model.dram[address : address + len(content)] = np.frombuffer(content, np.uint8)
            model.start(place, len(info.program) // 64, input=source, output=output)
            model.finish(200_000)
            raw = model.dram[output : output + info.output_bytes].copy()
            outputs = gather_outputs(info.outputs, raw, info.output_rows, info.output_channels)
            np.testing.assert_array_equal(outputs, expect(bundle, image, task).outputs)
            found.append((model.read_reg("CYCLES"), model.bus_bytes(), raw.tobytes()))
    return found


@pytest.mark.slow
def test_a_mapped_netlist_is_the_rtl(tmp_path):
    bundle = build_bundle(random_graph(MODEL), CONFIG)
    cells = (yosys_share() / "xilinx" / "cells_sim.v").read_text(encoding="utf-8")
    netlist = simulated_netlist(mapped(tmp_path), cells)
    rtl = generate(CONFIG, Accelerator(CONFIG, AXI3_BEATS))
    for stall in (0.0, 0.3):
        assert inferences(bundle, netlist, False, stall) == inferences(bundle, rtl, True, stall)


def test_a_cell_without_a_model_is_named():
    cells = "module LUT2 (input a);\nendmodule\nmodule RAMB36E1 (\n  input b);\nendmodule\n"
    netlist = "module edgemoe(a);\n  LUT2 #(\n    .INIT(4'h1)\n  ) one (\n  );\n  RAMB36E1 two (\n  );\nendmodule\n"
    text = simulated_netlist(netlist, cells)
    assert text.count("module RAMB36E1 (") == 1 and "module RAMB18E1 (" in text
    with pytest.raises(ValueError, match="cells without a model: PS7"):
        simulated_netlist(netlist + "  PS7 three (\n  );\n", cells)
