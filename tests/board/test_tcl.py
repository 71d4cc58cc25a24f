"""boards/build.tcl on stubbed Vivado commands, for every board."""

import dataclasses
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
from edgemoe.boards.zynq import ZynqFamily
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.constants import ADDRESS_BITS
from edgemoe_hw.top import Accelerator
from edgemoe_hw.verilog import FlatPorts
from edgemoe_sim.build import accelerator_verilog

from .conftest import pairs

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
    """Everything but the block design, with every argument, in order."""
    run = build(board)
    assert run.code == 0, run.output
    design = {
        "create_bd_cell",
        "set_property",
        "apply_bd_automation",
        "connect_bd_intf_net",
        "connect_bd_net",
        "assign_bd_address",
        "exclude_bd_addr_seg",
    }
    work = str(run.work)
    assert [call for call in run.calls if call[0] not in design] == [
        ["create_project", "-force", "edgemoe", f"{work}/project", "-part", board.part],
        ["add_files", "-norecurse", f"{work}/edgemoe.v"],
        ["update_compile_order", "-fileset", "sources_1"],
        ["create_bd_design", "edgemoe_bd"],
        ["validate_bd_design"],
        ["save_bd_design"],
        ["generate_target", "all", "edgemoe_bd.bd"],
        ["make_wrapper", "-files", "edgemoe_bd.bd", "-top"],
        ["add_files", "-norecurse", f"{work}/project/wrapper.v"],
        ["update_compile_order", "-fileset", "sources_1"],
        ["launch_runs", "synth_1", "-jobs", "4"],
        ["wait_on_run", "synth_1"],
        ["launch_runs", "impl_1", "-jobs", "4"],
        ["wait_on_run", "impl_1"],
        ["open_run", "impl_1"],
        ["report_utilization", "-file", f"{work}/utilization.rpt"],
        ["report_timing_summary", "-file", f"{work}/timing.rpt"],
        ["get_timing_paths", "-quiet", "-setup", "-max_paths", "1", "-nworst", "1"],
        ["get_timing_paths", "-quiet", "-hold", "-max_paths", "1", "-nworst", "1"],
        ["write_bitstream", "-force", f"{work}/edgemoe.bit"],
        ["report_utilization", "-return_string"],
    ]
    order = [call[0] for call in run.calls]
    last_of_design = max(index for index, name in enumerate(order) if name in design - {"set_property"})
    assert order.index("create_bd_design") < order.index("create_bd_cell")
    assert last_of_design < order.index("validate_bd_design")
    # Clocks first: an interface that is connected takes its clock's frequency along.
    assert (
        max(index for index, call in enumerate(run.calls) if call[0] == "connect_bd_net")
        < order.index("connect_bd_intf_net")
        < order.index("assign_bd_address")
    )
    assert [call[1:] for call in run.of("set_property") if call[1] != "-dict"] == [
        ["board_part", f"{board.board_part}:1.10", "project"],  # the newest
        ["synth_checkpoint_mode", "None", "edgemoe_bd.bd"],  # else the strategy does not reach the accelerator
        ["top", "edgemoe_bd_wrapper", "sources_1"],
        ["strategy", "Flow_PerfOptimized_high", "synth_1"],
        ["STEPS.SYNTH_DESIGN.ARGS.RETIMING", "true", "synth_1"],
        ["strategy", "Performance_Explore", "impl_1"],  # before what it would set back
        ["STEPS.PHYS_OPT_DESIGN.IS_ENABLED", "true", "impl_1"],
        ["STEPS.PHYS_OPT_DESIGN.ARGS.DIRECTIVE", "AggressiveExplore", "impl_1"],
        ["STEPS.POST_ROUTE_PHYS_OPT_DESIGN.IS_ENABLED", "true", "impl_1"],
        ["STEPS.POST_ROUTE_PHYS_OPT_DESIGN.ARGS.DIRECTIVE", "AggressiveExplore", "impl_1"],
    ]
    assert order.index("validate_bd_design") < call_of(run, "synth_checkpoint_mode") < order.index("generate_target")
    assert call_of(run, "STEPS.SYNTH_DESIGN.ARGS.RETIMING") < order.index("launch_runs")


def call_of(run, name):
    """Place of the call that sets a property."""
    return next(place for place, call in enumerate(run.calls) if call[:2] == ["set_property", name])


def test_names_with_spaces(build, tmp_path, monkeypatch):
    """Vivado takes lists of files and of folders: a name with a space is one of them."""
    monkeypatch.setenv("BOARD_FILES", "/my boards")
    run = build(BOARDS[0], work=tmp_path / "my work")
    assert run.code == 0, run.output
    assert run.of("set_param") == [["set_param", "board.repoPaths", "{/my boards}"]]
    assert [call[2] for call in run.of("add_files")] == [
        f"{{{run.work}/edgemoe.v}}",
        f"{{{run.work}/project/wrapper.v}}",
    ]
    assert run.calls[0][0] == "set_param"  # before the project, which reads it


def converters(board):
    """Masters between which and the memory a SmartConnect stands: those of the family whose ports are AXI3."""
    return range(board.config.axi_masters) if board.family.name == "zynq-7000" else ()


def test_cells(build, board):
    cells = build(board).cells
    memories = {f"memory{i}": "xilinx.com:ip:smartconnect:1.10" for i in converters(board)}
    assert cells == memories | {
        "ps": f"{board.family.ip}:1.10",
        "edgemoe_0": "edgemoe",
        "reset": "xilinx.com:ip:proc_sys_reset:1.10",
        "control": "xilinx.com:ip:smartconnect:1.10",
        "intc": "xilinx.com:ip:axi_intc:1.10",
    }


def test_settings_of_the_processing_system(build, board):
    """Every setting by its name: clock, ports and their widths; ports that are not used are off."""
    run = build(board)
    config = board.config
    used = range(config.axi_masters)
    bits, mhz = str(8 * config.axi_bytes), f"{config.assumed_clock_mhz:g}"
    if board.family.name == "zynq-7000":
        mode = {"PCW_OVERRIDE_BASIC_CLOCK": "0"}
        ports = {f"PCW_USE_S_AXI_HP{i}": str(int(i in used)) for i in range(4)}
        widths = {f"PCW_S_AXI_HP{i}_DATA_WIDTH": bits for i in used}
        rest = {
            "PCW_USE_M_AXI_GP0": "1",
            "PCW_USE_M_AXI_GP1": "0",
            "PCW_USE_S_AXI_GP0": "0",
            "PCW_USE_S_AXI_GP1": "0",
            "PCW_USE_S_AXI_ACP": "0",
            "PCW_USE_FABRIC_INTERRUPT": "1",
            "PCW_IRQ_F2P_INTR": "1",
            "PCW_EN_CLK0_PORT": "1",
            "PCW_EN_RST0_PORT": "1",
            "PCW_FPGA0_PERIPHERAL_FREQMHZ": mhz,
        }
        rule = "xilinx.com:bd_rule:processing_system7"
        automation = 'make_external "FIXED_IO, DDR" apply_board_preset "1" Master "Disable" Slave "Disable"'
    else:
        mode = {"PSU__OVERRIDE__BASIC_CLOCK": "0"}
        ports = {f"PSU__USE__S_AXI_GP{2 + i}": str(int(i in used)) for i in range(4)}
        widths = {f"PSU__SAXIGP{2 + i}__DATA_WIDTH": bits for i in used}
        rest = {
            "PSU__USE__M_AXI_GP0": "1",
            "PSU__USE__M_AXI_GP1": "0",
            "PSU__USE__M_AXI_GP2": "0",
            "PSU__MAXIGP0__DATA_WIDTH": "32",
            "PSU__USE__IRQ0": "1",
            "PSU__USE__FABRIC__RST": "1",
            "PSU__USE__S_AXI_GP0": "0",
            "PSU__USE__S_AXI_GP1": "0",
            "PSU__USE__S_AXI_GP6": "0",
            "PSU__USE__S_AXI_ACP": "0",
            "PSU__USE__S_AXI_ACE": "0",
            "PSU__FPGA_PL0_ENABLE": "1",
            "PSU__FPGA_PL1_ENABLE": "0",
            "PSU__FPGA_PL2_ENABLE": "0",
            "PSU__FPGA_PL3_ENABLE": "0",
            "PSU__CRL_APB__PL0_REF_CTRL__SRCSEL": "IOPLL",
            "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": mhz,
            "PSU__HIGH_ADDRESS__ENABLE": str(int(board.dram_bytes > 2 * GIB)),
        }
        rule, automation = "xilinx.com:bd_rule:zynq_ultra_ps_e", 'apply_board_preset "1"'
    on_ps = [call for call in run.calls if call[0] in ("apply_bd_automation", "set_property") and call[-1] == "ps"]
    # The preset first, then the clocks' mode, on which the meaning of the frequency depends.
    assert on_ps[0] == ["apply_bd_automation", "-rule", rule, "-config", automation, "ps"]
    assert [pairs(call[2].replace("CONFIG.", "")) for call in on_ps[1:]] == [mode, ports | widths | rest]


def test_clock(build, board):
    """The manifest has the clock that the PLL gives and that is timed, which is not above the one asked for."""
    run = build(board)
    found = json.loads((run.work / "result.json").read_text())["clock_mhz"]
    assert found == pytest.approx(board.pl_clock_mhz)
    others = {"pynq-z2": 142.857143, "ultra96v2": 214.285714, "aup-zu3": 214.285714, "kv260": 200, "kr260": 200}
    assert found == others.get(board.name, 250)


def test_clock_that_the_pll_does_not_give(build):
    """200 MHz of a PLL of 1500: Vivado times 187.5."""
    run = build(dataclasses.replace(load_board("zcu102"), clock_mhz=200.0))
    assert json.loads((run.work / "result.json").read_text())["clock_mhz"] == 187.5


def test_buses(build, board):
    """Every master of the RTL goes to an HP port of its own that is on, directly where that is AXI4 as well; the
    registers are on the control port."""
    run = build(board)
    expected = {
        (f"ps/{board.family.control}", "control/S00_AXI"),
        ("control/M00_AXI", "edgemoe_0/s_axi"),
        ("control/M01_AXI", "intc/s_axi"),
    }
    for i in range(board.config.axi_masters):
        if board.family.name == "zynq-7000":
            expected |= {(f"edgemoe_0/m{i}_axi", f"memory{i}/S00_AXI"), (f"memory{i}/M00_AXI", f"ps/S_AXI_HP{i}")}
        else:
            expected.add((f"edgemoe_0/m{i}_axi", f"ps/S_AXI_HP{i}_FPD"))
    assert run.buses == expected
    one = {"NUM_SI": "1", "NUM_MI": "1", "NUM_CLKS": "1"}
    expected = {"control": one | {"NUM_MI": "2"}, "intc": {"C_IRQ_CONNECTION": "1"}, "edgemoe_0": {}, "reset": {}} | {
        f"memory{i}": one for i in converters(board)
    }
    assert {name: values for name, values in run.settings.items() if name != "ps"} == expected


def test_clocks_resets_interrupt(build, board):
    nets, masters = build(board).nets, range(board.config.axi_masters)
    if board.family.name == "zynq-7000":
        clock, reset, irq = "ps/FCLK_CLK0", "ps/FCLK_RESET0_N", "ps/IRQ_F2P"
        of_ports = {"ps/M_AXI_GP0_ACLK", *(f"ps/S_AXI_HP{i}_ACLK" for i in masters)}
    else:
        clock, reset, irq = "ps/pl_clk0", "ps/pl_resetn0", "ps/pl_ps_irq0"
        of_ports = {"ps/maxihpm0_fpd_aclk", *(f"ps/saxihp{i}_fpd_aclk" for i in masters)}
    memories = {f"memory{i}" for i in converters(board)}
    assert nets == {
        clock: of_ports
        | {"edgemoe_0/clk", "reset/slowest_sync_clk", "control/aclk", "intc/s_axi_aclk"}
        | {f"{memory}/aclk" for memory in memories},
        reset: {"reset/ext_reset_in"},
        "reset/peripheral_aresetn": {"control/aresetn", "intc/s_axi_aresetn"} | {f"{m}/aresetn" for m in memories},
        "reset/peripheral_reset": {"edgemoe_0/rst"},  # active high
        "edgemoe_0/irq": {"intc/intr"},
        "intc/irq": {irq},
    }


def test_addresses(build, board):
    """Registers where PYNQ's device trees have the port; all DRAM and nothing else for the masters."""
    run = build(board)
    base = 0x4000_0000 if board.family.name == "zynq-7000" else 0xA000_0000
    assert run.addresses("ps/Data") == {
        "/edgemoe_0/s_axi/reg0": (base, 0x1000),
        "/intc/S_AXI/Reg": (base + 0x10000, 0x1000),
    }
    for i in range(board.config.axi_masters):
        found = run.addresses(f"edgemoe_0/m{i}_axi")
        if board.family.name == "zynq-7000":
            assert found == {f"/ps/S_AXI_HP{i}/HP{i}_DDR_LOWOCM": (0, board.dram_bytes)}
        else:
            block = f"/ps/SAXIGP{2 + i}/HP{i}_"
            high = board.dram_bytes - 2 * GIB
            assert found.pop(block + "DDR_LOW") == (0, 2 * GIB)
            assert found == (
                {block + "DDR_HIGH": (0x8_0000_0000, {2 * GIB: 2 * GIB, 6 * GIB: 8 * GIB}[high])} if high else {}
            )
            excluded = {call[-1] for call in run.of("exclude_bd_addr_seg") if call[2] == f"edgemoe_0/m{i}_axi"}
            assert excluded == {block + name for name in ("QSPI", "LPS_OCM", "PCIE_LOW")}


@pytest.mark.parametrize("names", [("Slice LUTs", "Slice Registers"), ("CLB LUTs", "CLB Registers")])
def test_results(build, names):
    run = build(BOARDS[0], wns=0.125, whs=0.031, report=REPORT.format(lut=names[0], ff=names[1]))
    assert (run.work / "edgemoe.bit").exists() and (run.work / "edgemoe.hwh").exists()
    assert json.loads((run.work / "result.json").read_text()) == {
        "vivado": "2024.1",
        "board_part": f"{BOARDS[0].board_part}:1.10",
        "clock_mhz": 214.285714,
        "wns_ns": 0.125,
        "whs_ns": 0.031,
        "utilisation": {"lut": 25624, "ff": 16606, "dsp": 218, "bram36": 132},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wns": -0.012}, "timing is not met at"),
        ({"whs": -0.5}, "worst hold slack -0.5 ns"),
        ({"paths": 0}, "no timing paths"),
        ({"boards": 0}, "Vivado Store"),
        ({"no_ip": "smartconnect"}, "this Vivado has no IP xilinx.com:ip:smartconnect"),
        ({"status": "synth_design ERROR"}, "synth_1 ended with 'synth_design ERROR'"),
        ({"width": 32}, "has 32 data bits"),
        ({"interfaces": ["s_axi", "m0_axi", "m1_axi", "m2_axi"]}, "sees the masters"),
        ({"interfaces": ["m0_axi", "m1_axi"]}, "no interface edgemoe_0/s_axi"),
        ({"outstanding": 2}, "edgemoe_0/m0_axi has '2' outstanding transactions (READ), not 16"),
        ({"handoff": 0}, "no hardware handoff"),
        ({"parts": 0}, "no device support for xc7z020clg400-1"),
        ({"part": "xc7z010clg400-1"}, "for xc7z010clg400-1, and boards/pynq-z2/board.toml says xc7z020clg400-1"),
        ({"freq_hz": 50_000_000}, "makes 50 MHz of clock_mhz = 142.86"),
        ({"freq_hz": 166_666_667}, "makes 166.666667 MHz"),
        ({"freq_hz": ""}, "has no frequency"),
        ({"disabled": "CONFIG.PCW_USE_S_AXI_HP0"}, "CONFIG.PCW_USE_S_AXI_HP0 of ps is '0' and cannot be set to '1'"),
    ],
)
def test_refusals(build, settings, message):
    """Each is one message and a non-zero exit code, and no bitstream, not even one of an earlier run."""
    board = load_board("pynq-z2")
    assert build(board).code == 0
    run = build(board, **settings)
    assert run.code == 1
    first, second = run.output.splitlines()[:2]
    assert first.startswith("edgemoe: ") and message in first and second == "    while executing"
    assert run.of("write_bitstream") == []
    assert not (run.work / "edgemoe.bit").exists() and not (run.work / "result.json").exists()


def test_a_setting_that_the_ip_has_not_is_refused(build, monkeypatch):
    """Vivado itself only warns of a misspelt name."""
    monkeypatch.setattr(ZynqFamily, "clock_mode", {"PCW_OVERRIDE_BASIC_CLOCKS": "0"})
    run = build(load_board("pynq-z2"))
    assert run.code == 1 and "CONFIG.PCW_OVERRIDE_BASIC_CLOCKS of ps is '' and cannot be set to '0'" in run.output


@pytest.mark.parametrize(
    "board",
    [board for board in BOARDS if board.family.name != "zynq-7000"],
    indirect=True,
    ids=lambda board: board.name,
)
def test_a_preset_with_divisors_of_its_own_is_refused(build, board, monkeypatch):
    """Where the clocks' mode could not be set, the design would be timed for the preset's 100 MHz."""
    monkeypatch.setattr(ZynqFamily, "clock_mode", {})
    run = build(board)
    assert run.code == 1 and "the processing system makes 99.9999 MHz of clock_mhz" in run.output


def test_paths_that_tcl_would_misread_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no braces"):
        parameters_tcl(BOARDS[0], tmp_path / "a{b.v", tmp_path)


def attributes_of(verilog: str) -> dict[str, dict[str, str]]:
    """Attributes by port of the module edgemoe."""
    text = verilog[verilog.index("\nmodule edgemoe(") :]
    found = re.findall(
        r'((?:^  \(\* \w+ = ".*" \*\)\n)*)^  (?:in|out)put (?:\[.*\] )?(\w+);$',
        text[: text.index("\nendmodule")],
        re.MULTILINE,
    )
    return {port: dict(re.findall(r'\(\* (\w+) = "(.*)" \*\)', lines)) for lines, port in found}


def test_interfaces_of_the_rtl(board):
    """Every port belongs to an interface; widths, protocols, clock and reset as the block design needs them."""
    ports = FlatPorts(Accelerator(board.config)).ports
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
            f"SUPPORTS_NARROW_BURST 0, MAX_BURST_LENGTH 256, NUM_READ_OUTSTANDING 16, NUM_WRITE_OUTSTANDING 16, "
            f"HAS_LOCK 0, HAS_QOS 0, HAS_REGION 0"
        )
    modes = {name: values["X_INTERFACE_MODE"] for name, values in found.items() if "X_INTERFACE_MODE" in values}
    assert modes == {"clk": "slave", "rst": "slave", "irq": "master", "s_axi_awaddr": "slave"} | {
        f"{master}_awaddr": "master" for master in masters
    }  # once an interface
    assert found["clk"] == {
        "X_INTERFACE_INFO": "xilinx.com:signal:clock:1.0 clk CLK",
        "X_INTERFACE_MODE": "slave",
        "X_INTERFACE_PARAMETER": f"XIL_INTERFACENAME clk, ASSOCIATED_BUSIF {':'.join(['s_axi', *masters])}, "
        "ASSOCIATED_RESET rst, "
        "FREQ_TOLERANCE_HZ -1",
    }
    assert "POLARITY ACTIVE_HIGH" in found["rst"]["X_INTERFACE_PARAMETER"]
    assert "SENSITIVITY LEVEL_HIGH" in found["irq"]["X_INTERFACE_PARAMETER"]


def test_rtl_is_the_simulated_one():
    """The attributes are all that Vivado's Verilog has more than the simulator's."""
    config = PRESETS["tiny"]
    text = rtl_text(config)
    assert all(attributes_of(text).values())
    assert re.sub(r"^  \(\* X_INTERFACE_.*\n", "", text, flags=re.MULTILINE) == accelerator_verilog(config)
