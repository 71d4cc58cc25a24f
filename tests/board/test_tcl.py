"""boards/build.tcl on stubbed Vivado commands, for every board."""

import json
import re

import pytest

from edgemoe.boards import board_names, load_board
from edgemoe.boards.build_inputs import (
    add_attributes,
    interface_attributes,
    parameters_tcl,
    rtl_text,
)
from edgemoe_hw.axi import ADDRESS_BITS
from edgemoe_hw.config import PRESETS
from edgemoe_hw.top import Accelerator
from edgemoe_hw.verilog import _Flat
from edgemoe_sim.build import accelerator_verilog

BOARDS = [load_board(name) for name in board_names()]
GIB = 1 << 30
REPORT = """
| Site Type                  | Used  | Fixed | Available | Util% |
| {lut}*                     | 25624 |     0 |     53200 | 48.17 |
|   LUT as Memory            |  2060 |     0 |     17400 | 11.84 |
| {ff}                       | 16606 |     0 |    106400 | 15.61 |
| Block RAM Tile             |   132 |     0 |       140 | 94.29 |
| DSPs                       |   218 |     0 |       220 | 99.09 |
"""


@pytest.fixture(params=BOARDS, ids=lambda board: board.name)
def board(request):
    return request.param


def test_project(build, board):
    run = build(board)
    assert run.code == 0, run.err
    (project,) = run.of("create_project")
    assert project[project.index("-part") + 1] == board.part
    assert ["set_property", "board_part", f"{board.board_part}:1.10", "project"] in run.calls  # the newest
    assert ["add_files", "-norecurse", str(run.work / "edgemoe.v")] in run.calls
    order = [call[0] for call in run.calls]
    assert order.index("validate_bd_design") < order.index("launch_runs") < order.index("write_bitstream")


def test_cells(build, board):
    cells = build(board).cells
    memories = {f"memory{i}": "xilinx.com:ip:smartconnect:1.10" for i in range(board.config.axi_masters)}
    assert cells == memories | {
        "ps": f"{board.family.ip}:1.10", "edgemoe_0": "edgemoe", "reset": "xilinx.com:ip:proc_sys_reset:1.10",
        "control": "xilinx.com:ip:smartconnect:1.10", "intc": "xilinx.com:ip:axi_intc:1.10"}


def test_settings_of_the_processing_system(build, board):
    """Clock, ports and their widths; ports that are not used are off."""
    run = build(board)
    settings, config = run.settings["ps"], board.config
    assert settings == board.ps_settings
    used = range(config.axi_masters)
    if board.family.name == "zynq-7000":
        ports = {f"PCW_USE_S_AXI_HP{i}": str(int(i in used)) for i in range(4)}
        widths = {f"PCW_S_AXI_HP{i}_DATA_WIDTH": str(8 * config.axi_bytes) for i in used}
        rest = {"PCW_USE_M_AXI_GP0": "1", "PCW_IRQ_F2P_INTR": "1",
                "PCW_FPGA0_PERIPHERAL_FREQMHZ": f"{config.assumed_clock_mhz:g}"}
        rule = "xilinx.com:bd_rule:processing_system7"
        automation = 'make_external "FIXED_IO, DDR" apply_board_preset "1"'
    else:
        ports = {f"PSU__USE__S_AXI_GP{2 + i}": str(int(i in used)) for i in range(4)}
        widths = {f"PSU__SAXIGP{2 + i}__DATA_WIDTH": str(8 * config.axi_bytes) for i in used}
        rest = {"PSU__USE__M_AXI_GP0": "1", "PSU__USE__IRQ0": "1",
                "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": f"{config.assumed_clock_mhz:g}",
                "PSU__HIGH_ADDRESS__ENABLE": str(int(board.dram_bytes > 2 * GIB))}
        rule, automation = "xilinx.com:bd_rule:zynq_ultra_ps_e", 'apply_board_preset "1"'
    assert settings.items() >= (ports | widths | rest).items()
    (applied,) = run.of("apply_bd_automation")
    assert applied[2] == rule and applied[4].startswith(automation)


def test_buses(build, board):
    """Every master of the RTL goes to an HP port of its own that is on; the registers are on the control port."""
    run = build(board)
    expected = {(f"ps/{board.family.control}", "control/S00_AXI"), ("control/M00_AXI", "edgemoe_0/s_axi"),
                ("control/M01_AXI", "intc/s_axi")}
    suffix = "" if board.family.name == "zynq-7000" else "_FPD"
    for i in range(board.config.axi_masters):
        expected |= {(f"edgemoe_0/m{i}_axi", f"memory{i}/S00_AXI"), (f"memory{i}/M00_AXI", f"ps/S_AXI_HP{i}{suffix}")}
    assert run.buses == expected
    assert run.settings["control"].items() >= {"NUM_SI": "1", "NUM_MI": "2"}.items()


def test_clocks_resets_interrupt(build, board):
    nets, masters = build(board).nets, range(board.config.axi_masters)
    if board.family.name == "zynq-7000":
        clock, reset, irq = "ps/FCLK_CLK0", "ps/FCLK_RESET0_N", "ps/IRQ_F2P"
        of_ports = {"ps/M_AXI_GP0_ACLK", *(f"ps/S_AXI_HP{i}_ACLK" for i in masters)}
    else:
        clock, reset, irq = "ps/pl_clk0", "ps/pl_resetn0", "ps/pl_ps_irq0"
        of_ports = {"ps/maxihpm0_fpd_aclk", *(f"ps/saxihp{i}_fpd_aclk" for i in masters)}
    memories = {f"memory{i}" for i in masters}
    assert nets == {
        clock: of_ports | {"edgemoe_0/clk", "reset/slowest_sync_clk", "control/aclk", "intc/s_axi_aclk"}
        | {f"{memory}/aclk" for memory in memories},
        reset: {"reset/ext_reset_in"},
        "reset/peripheral_aresetn": {"control/aresetn", "intc/s_axi_aresetn"} | {f"{m}/aresetn" for m in memories},
        "reset/peripheral_reset": {"edgemoe_0/rst"},  # active high
        "edgemoe_0/irq": {"intc/intr"}, "intc/irq": {irq},
    }


def test_addresses(build, board):
    """Registers where PYNQ's device trees have the port; all DRAM and nothing else for the masters."""
    run = build(board)
    base = 0x4000_0000 if board.family.name == "zynq-7000" else 0xA000_0000
    assert run.addresses("ps/Data") == {
        "/edgemoe_0/s_axi/reg0": (base, 0x1000), "/intc/S_AXI/Reg": (base + 0x10000, 0x1000)}
    for i in range(board.config.axi_masters):
        found = run.addresses(f"edgemoe_0/m{i}_axi")
        if board.family.name == "zynq-7000":
            assert found == {f"/ps/S_AXI_HP{i}/HP{i}_DDR_LOWOCM": (0, board.dram_bytes)}
        else:
            block = f"/ps/SAXIGP{2 + i}/HP{i}_"
            high = board.dram_bytes - 2 * GIB
            assert found.pop(block + "DDR_LOW") == (0, 2 * GIB)
            assert found == ({block + "DDR_HIGH": (0x8_0000_0000, {2 * GIB: 2 * GIB, 6 * GIB: 8 * GIB}[high])}
                             if high else {})
            excluded = {call[-1] for call in run.of("exclude_bd_addr_seg") if call[2] == f"edgemoe_0/m{i}_axi"}
            assert excluded == {block + "QSPI", block + "LPS_OCM"}


@pytest.mark.parametrize("names", [("Slice LUTs", "Slice Registers"), ("CLB LUTs", "CLB Registers")])
def test_results(build, names):
    run = build(BOARDS[0], wns=0.125, whs=0.031, report=REPORT.format(lut=names[0], ff=names[1]))
    assert (run.work / "edgemoe.bit").exists() and (run.work / "edgemoe.hwh").exists()
    assert json.loads((run.work / "result.json").read_text()) == {
        "vivado": "2024.1", "board_part": f"{BOARDS[0].board_part}:1.10", "wns_ns": 0.125, "whs_ns": 0.031,
        "utilisation": {"lut": 25624, "ff": 16606, "dsp": 218, "bram36": 132}}


@pytest.mark.parametrize(("settings", "message"), [
    ({"wns": -0.012}, "timing is not met at"),
    ({"whs": -0.5}, "worst hold slack -0.5 ns"),
    ({"paths": 0}, "no timing paths"),
    ({"boards": 0}, "Vivado Store"),
    ({"no_ip": "smartconnect"}, "this Vivado has no IP xilinx.com:ip:smartconnect"),
    ({"status": "synth_design ERROR"}, "synth_1 ended with 'synth_design ERROR'"),
    ({"width": 32}, "has 32 data bits"),
    ({"interfaces": ["s_axi", "m0_axi", "m1_axi", "m2_axi"]}, "sees the masters"),
    ({"interfaces": ["m0_axi"]}, "no interface edgemoe_0/s_axi"),
    ({"handoff": 0}, "no hardware handoff"),
])
def test_refusals(build, settings, message):
    """Each is one message and a non-zero exit code, and no bitstream, not even one of an earlier run."""
    board = load_board("pynq-z2")
    assert build(board).code == 0
    run = build(board, **settings)
    assert run.code == 1
    assert message in run.err and len(run.err.strip().splitlines()) == 1
    assert run.of("write_bitstream") == []
    assert not (run.work / "edgemoe.bit").exists() and not (run.work / "result.json").exists()


def test_paths_that_tcl_would_misread_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no braces"):
        parameters_tcl(BOARDS[0], tmp_path / "a{b.v", tmp_path)


def attributes_of(verilog: str) -> dict[str, dict[str, str]]:
    """Attributes by port of the module edgemoe."""
    text = verilog[verilog.index("\nmodule edgemoe("):]
    found = re.findall(r'((?:^  \(\* \w+ = ".*" \*\)\n)*)^  (?:in|out)put (?:\[.*\] )?(\w+);$',
                       text[:text.index("\nendmodule")], re.MULTILINE)
    return {port: dict(re.findall(r'\(\* (\w+) = "(.*)" \*\)', lines)) for lines, port in found}


def test_interfaces_of_the_rtl(board):
    """Every port belongs to an interface; widths, protocols, clock and reset as the block design needs them."""
    ports = _Flat(Accelerator(board.config)).ports
    declarations = "".join(f"  input [{len(signal) - 1}:0] {name};\n" for name, signal in ports.items())
    attributes = interface_attributes(board.config, ADDRESS_BITS)
    found = attributes_of(add_attributes(f"\nmodule edgemoe();\n{declarations}\nendmodule", "edgemoe", attributes))
    assert found.keys() == ports.keys()
    for name, values in found.items():
        bus, _, logical = name.rpartition("_")
        if bus:
            assert values["X_INTERFACE_INFO"] == f"xilinx.com:interface:aximm:1.0 {bus} {logical.upper()}"
    masters = [f"m{i}_axi" for i in range(board.hp_ports)]
    assert {name.rpartition("_")[0] for name in ports} - {""} == {"s_axi", *masters}
    for master in masters:
        assert len(ports[f"{master}_wdata"]) == board.hp_bits and len(ports[f"{master}_awaddr"]) == 40
        assert found[f"{master}_awaddr"]["X_INTERFACE_PARAMETER"] == (
            f"XIL_INTERFACENAME {master}, PROTOCOL AXI4, DATA_WIDTH {board.hp_bits}, ADDR_WIDTH 40, "
            f"SUPPORTS_NARROW_BURST 0")
    assert found["clk"] == {
        "X_INTERFACE_INFO": "xilinx.com:signal:clock:1.0 clk CLK",
        "X_INTERFACE_PARAMETER":
            f"XIL_INTERFACENAME clk, ASSOCIATED_BUSIF {':'.join(['s_axi', *masters])}, ASSOCIATED_RESET rst"}
    assert "POLARITY ACTIVE_HIGH" in found["rst"]["X_INTERFACE_PARAMETER"]
    assert "SENSITIVITY LEVEL_HIGH" in found["irq"]["X_INTERFACE_PARAMETER"]


def test_rtl_is_the_simulated_one():
    """The attributes are all that Vivado's Verilog has more than the simulator's."""
    config = PRESETS["tiny"]
    text = rtl_text(config)
    assert all(attributes_of(text).values())
    assert re.sub(r"^  \(\* X_INTERFACE_.*\n", "", text, flags=re.MULTILINE) == accelerator_verilog(config)
