"""The .hwh that is written without Vivado, as PYNQ's own parser reads it."""

import dataclasses
import sys
from importlib.metadata import version

import pytest

from edgemoe.boards import IP_VLNV, MODULE_VLNV, board_names, hwh_text, load_board
from edgemoe_hw.spec import regs

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="pynq 4.0.0 needs numpy 1 and grpcio 1.64, which have no wheels here"
)

BOARDS = [load_board(name) for name in board_names()]
# One whose PLL does not give what is asked for.
BOARDS.append(dataclasses.replace(load_board("zcu102"), name="zcu102-200MHz", clock_mhz=200.0))


@pytest.fixture
def parsed(tmp_path):
    """PYNQ's view of a board's .hwh: what ``Overlay`` makes of the file beside a bitstream."""
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
    from pynqmetadata.frontends import Metadata

    def parse(board, *arguments):
        path = tmp_path / f"{board.name}.hwh"
        path.write_text(hwh_text(board, *arguments), encoding="utf-8")
        return RuntimeMetadataParser(Metadata(input=path))

    return parse


@pytest.fixture(params=BOARDS, ids=lambda board: board.name)
def board(request):
    return request.param


def test_accelerator(parsed, board):
    """Type, address range and interrupt: all that binding a driver takes."""
    found = parsed(board).ip_dict["edgemoe_0"]
    seven = board.family.name == "zynq-7000"
    assert found["type"] == MODULE_VLNV == "xilinx.com:module_ref:edgemoe:1.0"
    assert (found["phys_addr"], found["addr_range"]) == (0x4000_0000 if seven else 0xA000_0000, 1 << regs.ADDRESS_BITS)
    assert found["fullpath"] == "edgemoe_0" and found["mem_id"] == "s_axi"
    assert found["interrupts"]["irq"] == {"controller": "intc", "index": 0, "fullpath": "edgemoe_0/irq"}


def test_interrupt_controller(parsed, board):
    result = parsed(board)
    seven = board.family.name == "zynq-7000"
    assert result.ip_dict["intc"]["phys_addr"] == (0x4001_0000 if seven else 0xA001_0000)
    assert result.interrupt_controllers["intc"]["raw_irq"] == (61 if seven else 121)
    assert result.interrupt_pins["edgemoe_0/irq"]["controller"] == "intc"


def test_processing_system(parsed, board):
    result = parsed(board)
    parameters, clock = result.ip_dict["ps"]["parameters"], result.clock_dict[0]
    assert parameters.items() >= board.ps_settings.items()
    assert clock["enable"] == 1 and not any(result.clock_dict[i]["enable"] for i in (1, 2, 3))
    # PYNQ 3 writes these divisors and leaves the source, which boards boot with as the IO PLL.
    seven = board.family.name == "zynq-7000"
    source = "PCW_FCLK0_PERIPHERAL_CLKSRC" if seven else "PSU__CRL_APB__PL0_REF_CTRL__SRCSEL"
    assert parameters[source] == ("IO PLL" if seven else "IOPLL")
    mhz = board.pll_mhz / clock["divisor0"] / clock["divisor1"]
    assert 0.9 * board.clock_mhz < mhz <= board.clock_mhz and mhz == pytest.approx(board.pl_clock_mhz)
    if seven:
        assert result.family_ps == "processing_system7"
    else:  # the widths that PYNQ sets when it loads a bitstream
        assert result.family_ps == "zynq_ultra_ps_e" and clock.get("frequency", mhz) == pytest.approx(
            mhz, abs=5e-4
        )  # PYNQ 4
        widths = {name: value for name, value in parameters.items() if name.startswith("C_SAXIGP")}
        assert widths == {f"C_SAXIGP{2 + i}_DATA_WIDTH": str(board.hp_bits) for i in range(board.hp_ports)}


def test_no_registers(parsed):
    """As in Vivado's files: whoever needs their names must have them from elsewhere (EdgeMoeIP does)."""
    assert not parsed(BOARDS[0]).ip_dict["edgemoe_0"].get("registers")


def pynqmetadata_is_old() -> bool:
    """PYNQ 3.0.1's, 0.1.2."""
    return tuple(map(int, version("pynqmetadata").split(".")))[:2] < (0, 2)


def test_masters_reach_the_dram(parsed, board):
    """Address map of each master: the DRAM behind its own HP port."""
    accelerator = parsed(board).md.blocks["edgemoe_0"]
    for index, port in enumerate(board.ports):
        found = accelerator.ports[f"m{index}_axi"].addrmap.values()
        if pynqmetadata_is_old():  # it keeps a segment's name, one a port, and no addresses
            assert {entry["block"] for entry in found} <= {segment.name for segment in port.segments} and found
            continue
        assert {(entry["block"], entry["baseaddr"], entry["addr_range"]) for entry in found} == {
            (segment.name, segment.base, segment.size) for segment in port.segments
        }


def test_packaged_ip(parsed):
    assert parsed(BOARDS[0], IP_VLNV).ip_dict["edgemoe_0"]["type"] == IP_VLNV
