"""Boards' data files: those that there are, and every way in which one can be wrong."""

import dataclasses
import re

import pytest

from edgemoe.boards import BoardError, board_names, configuration_names, load_board
from edgemoe.boards.board import BOARDS, read_board
from edgemoe.compiler.fits import fits
from edgemoe.configs import find_config
from edgemoe.explorer.memories import rams, taken
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.config import PRESETS as MODELS

NAMES = ["aup-zu3", "kr260", "kv260", "pynq-z2", "ultra96v2", "zcu102", "zcu104"]
SMALL = ["kr260", "kv260", "pynq-z2"]  # boards whose own configuration takes nearly all block RAM
CONFIGURATIONS = [
    f"{name}{suffix}" for name in NAMES for suffix in ("", "-large", *(["-small"] if name in SMALL else []))
]
GOOD = (BOARDS / "aup-zu3" / "board.toml").read_text(encoding="utf-8")


def test_names():
    assert board_names() == NAMES
    assert configuration_names() == CONFIGURATIONS


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_is_the_board_with_another_accelerator(name):
    board, large = load_board(name), load_board(f"{name}-large")
    changed = {
        field.name for field in dataclasses.fields(board) if getattr(board, field.name) != getattr(large, field.name)
    }
    assert changed == {"name", "config"} and large.name == large.config.name == f"{name}-large"
    assert large.config.content_hash != board.config.content_hash
    assert find_config(large.name) == large.config
    array = ("lanes_k", "lanes_n", "epilogue_lanes", "norm_lanes", "dsp_chain", "axi_masters", "axi_bytes", "ultra_ram")
    assert all(getattr(large.config, field) == getattr(board.config, field) for field in array)


def most_block_rams(config):
    """If every memory's depth is rounded up to a power of two, as a mapper may that splits none."""
    deeper = [dataclasses.replace(ram, rows=1 << (ram.rows - 1).bit_length()) for ram in rams(config)]
    return sum(taken(ram).bram36 for ram in deeper)


@pytest.mark.parametrize("name", SMALL)
def test_small_variant(name):
    """The way out where Vivado maps memories less tightly than Yosys: a tenth to spare at the worst, and the models of
    the examples still fit."""
    board, small = load_board(name), load_board(f"{name}-small")
    assert most_block_rams(small.config) <= 0.9 * board.device.bram36
    assert sum(taken(ram).bram36 for ram in rams(small.config)) < 0.8 * board.device.bram36
    for model in ("m3vit-micro", "m3vit-tiny"):
        assert fits(MODELS[model], small.config) == []
    assert (small.hp_ports, small.clock_mhz) == (board.hp_ports, board.clock_mhz)


def test_configurations_that_need_a_smaller_one():
    """At the worst these do not fit, and ``make bitstream`` names one that does."""
    boards = [load_board(name) for name in CONFIGURATIONS]
    assert [board.name for board in boards if most_block_rams(board.config) > board.device.bram36] == [
        "aup-zu3-large",
        "pynq-z2",
        "pynq-z2-large",
        "ultra96v2-large",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[variants.large]\nlanes_m = 3", "variants.large has unknown fields lanes_m"),
        ("[variants.large]\nname = 'x'", "variants.large must not have name: the board's other keys decide that"),
        ("[variants.large]\nmax_dim = 9999", "variants.large: max_dim must be at most 1024, not 9999"),
        ("[variants.large]", "variants must be tables [variants.word] with fields that differ, not large = {}"),
        ("[variants.Too-large]\nmax_dim = 384", "not Too-large = {'max_dim': 384}"),
    ],
)
def test_wrong_variant(tmp_path, text, message):
    """It is found whether or not it is the one that was asked for."""
    path = tmp_path / "zu3" / "board.toml"
    path.parent.mkdir()
    path.write_text(GOOD.partition("[variants.")[0] + text, encoding="utf-8")
    for read in (lambda: read_board(path), lambda: load_board("zu3-large", tmp_path)):
        with pytest.raises(BoardError, match=re.escape(message)) as error:
            read()
        assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", NAMES)
def test_board(name):
    board = load_board(name)
    config = board.config
    assert config.name == board.name == name
    assert (config.axi_masters, 8 * config.axi_bytes) == (board.hp_ports, board.hp_bits)
    assert config.assumed_clock_mhz == board.clock_mhz
    assert config.dram_gb_per_second == board.dram_gb_per_second
    assert len(board.ports) == board.hp_ports and board.sources
    assert board.status == "not run on hardware"
    assert find_config(name).content_hash == config.content_hash


@pytest.mark.parametrize(
    ("pll", "clock", "divisors"),
    [
        (1000, 100, (10, 1)),
        (1000, 200, (5, 1)),
        (1500, 200, (8, 1)),
        (1500, 150, (10, 1)),
        (1500, 1500, (1, 1)),
        (1500, 10, (50, 3)),
        (1499.985, 200, (8, 1)),
        (1000, 99.9999, (10, 1)),
        (1500, 22, (23, 3)),  # 68.2: 69
    ],
)
def test_divisors(pll, clock, divisors):
    """Both fit six bits, the clock is the fastest that is not above the one asked for."""
    board = dataclasses.replace(load_board("aup-zu3"), pll_mhz=pll, clock_mhz=clock)
    assert board.divisors == divisors
    assert board.pl_clock_mhz == pll / divisors[0] / divisors[1] <= clock * (1 + 1e-5)


# Part, DRAM and IO PLL of each board as its files in Xilinx/XilinxBoardStore (AUP-ZU3: RealDigitalOrg/aup-zu3-bsp) say.
@pytest.mark.parametrize(
    ("name", "part", "board_part", "mib", "ports", "pll"),
    [
        ("aup-zu3", "xczu3eg-sfvc784-2-e", "realdigital.org:aup-zu3-8gb:part0", 8192, (2, 128), 1500),
        ("kr260", "xck26-sfvc784-2LV-c", "xilinx.com:kr260_som:part0", 4096, (4, 128), 1000),
        ("kv260", "xck26-sfvc784-2LV-c", "xilinx.com:kv260_som:part0", 4096, (4, 128), 1000),
        ("pynq-z2", "xc7z020clg400-1", "tul.com.tw:pynq-z2:part0", 512, (2, 64), 1000),
        ("ultra96v2", "xczu3eg-sbva484-1-i", "avnet.com:ultra96v2:part0", 2048, (1, 128), 1500),
        ("zcu102", "xczu9eg-ffvb1156-2-e", "xilinx.com:zcu102:part0", 4096, (4, 128), 1500),
        ("zcu104", "xczu7ev-ffvc1156-2-e", "xilinx.com:zcu104:part0", 2048, (4, 128), 1500),
    ],
)
def test_facts(name, part, board_part, mib, ports, pll):
    board = load_board(name)
    assert (board.part, board.board_part, board.dram_bytes) == (part, board_part, mib << 20)
    assert (board.hp_ports, board.hp_bits) == ports and board.pll_mhz == pll
    assert board.family.name == ("zynq-7000" if part.startswith("xc7z") else "zynq-ultrascale+")


@pytest.mark.parametrize("name", sorted(set(NAMES) & PRESETS.keys()))
def test_a_preset_named_after_a_board_is_its_configuration(name):
    assert load_board(name).config == PRESETS[name]


@pytest.mark.parametrize(
    ("found", "wrong", "message"),
    [
        ('family = "zynq-ultrascale+"', 'family = "versal"', "family must be one of zynq-7000, zynq-ultrascale+"),
        ('device = "xczu3eg"', 'device = "xc7z020"', "part 'xczu3eg-sfvc784-2-e' is not of device 'xc7z020'"),
        ('family = "zynq-ultrascale+"', 'family = "zynq-7000"', "is not of family"),
        ('preset = "pynq-z2"', 'preset = "huge"', "preset must be one of pynq-z2"),
        ("hp_ports = 2", "hp_ports = 5", "hp_ports must be between 1 and 4, not 5"),
        ("hp_ports = 2", "hp_ports = 0", "hp_ports must be positive, not 0"),
        ("hp_ports = 2", "hp_ports = true", "hp_ports must be int, not True"),
        ("hp_bits = 128", "hp_bits = 32", "hp_bits must be 64 or 128, not 32"),
        ("hp_bits = 128", 'hp_bits = "128"', "hp_bits must be int, not '128'"),
        ("clock_mhz = 214.29", 'clock_mhz = "fast"', "clock_mhz must be int or float, not 'fast'"),
        ("clock_mhz = 214.29", "clock_mhz = 249", "a PLL of 1500 MHz gives 214.286, not 249"),
        ("clock_mhz = 214.29", "clock_mhz = 1700", "a PLL of 1500 MHz gives 1500, not 1700"),
        ("clock_mhz = 214.29", "clock_mhz = 0.1", "must be at least 0.378, not 0.1"),
        ('pynq = "3.1 and later"', 'pynq = "2.7 to 3.1"', "pynq must name no image before 3.0, whose Python is older"),
        ("dram_mib = 8192", "", "dram_mib missing"),
        ("dram_mib = 8192", "dram_mib = 8192\ndram_gib = 8", "unknown keys dram_gib; known: title"),
        ("dram_share = 0.75", "dram_share = 1.1", "dram_share must be at most 1, not 1.1"),
        ("dram_share = 0.75", "dram_share = 0", "dram_share must be positive, not 0"),
        ("dram_peak_gb_per_second = 9.6", "", "dram_peak_gb_per_second missing"),
        (
            "dram_peak_gb_per_second = 9.6",
            "dram_peak_gb_per_second = inf",
            "dram_gb_per_second must be a positive number",
        ),
        ("lanes_n = 40", "dram_gb_per_second = 8", "overrides must not have dram_gb_per_second"),
        ("lanes_n = 40", "lanes_m = 32", "overrides has unknown fields lanes_m"),
        ("lanes_n = 40", "axi_bytes = 8", "overrides must not have axi_bytes"),
        ("lanes_n = 40", "lanes_n = 30", "epilogue_lanes must divide lanes_n (30)"),
        ("lanes_n = 40", "lanes_n 32", "not readable as TOML"),
    ],
)
def test_wrong_data_file(tmp_path, found, wrong, message):
    """One message that names the file and says what is wrong."""
    assert found in GOOD
    path = tmp_path / "board.toml"
    path.write_text(GOOD.replace(found, wrong), encoding="utf-8")
    with pytest.raises(BoardError, match=re.escape(message)) as error:
        read_board(path)
    assert str(error.value).startswith(f"{path}: ")


def test_unknown_board():
    with pytest.raises(BoardError, match=f"board must be one of {', '.join(CONFIGURATIONS)}, not 'zynq'"):
        load_board("zynq")


def test_data_files_are_missing(tmp_path):
    assert board_names(tmp_path) == []
    with pytest.raises(BoardError, match=f"no board's data file is in {tmp_path}: this copy of edgemoe is incomplete"):
        load_board("kv260", tmp_path)


def test_list(edgemoe):
    text = edgemoe.ok("boards")
    assert all(f"{name} " in text for name in CONFIGURATIONS) and "assumed" in text
    assert max(map(len, text.splitlines())) <= 80


def test_wrong_board_on_the_command_line(edgemoe):
    for command in (["hwh", "zynq"], ["bitstream", "zynq"], ["flash", "zynq", "--host", "h"], ["--only", "zynq"]):
        edgemoe("boards", *command).refused(f"edgemoe: board must be one of {', '.join(CONFIGURATIONS)}, not 'zynq'\n")


def test_table_in_the_documentation():
    """docs/boards.md: ports, clock and array of every board."""
    text = (BOARDS.parent / "docs" / "boards.md").read_text(encoding="utf-8")
    found = {}
    for line in re.findall(r"^\| `.*MHz.*$", text, re.MULTILINE):
        numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", "|".join(line.split("|")[3:6]))]
        found |= dict.fromkeys(re.findall(r"`([\w-]+)`", line), (line.split("|")[2].strip().lower(), numbers))
    assert found == {
        board.name: (
            board.device.name,
            [board.hp_ports, board.hp_bits, board.clock_mhz, board.config.lanes_k, board.config.lanes_n],
        )
        for board in map(load_board, NAMES)
    }


# Data rate (MT/s) and width (bits) of the DRAM in the boards' presets.
@pytest.mark.parametrize(
    ("name", "rate", "bits"),
    [
        ("aup-zu3", 2400, 32),
        ("kr260", 2400, 64),
        ("kv260", 2400, 64),
        ("pynq-z2", 1050, 16),
        ("ultra96v2", 1067, 32),
        ("zcu102", 2133, 64),
        ("zcu104", 2133, 64),
    ],
)
def test_bandwidth(name, rate, bits):
    """The peak is that of the DRAM; three quarters of it are assumed, whatever the clock of the logic."""
    board = load_board(name)
    assert board.dram_peak_gb_per_second == pytest.approx(rate * bits / 8000, rel=3e-3)
    assert board.dram_gb_per_second == pytest.approx(0.75 * board.dram_peak_gb_per_second)
    assert board.port_gb_per_second == board.hp_ports * board.hp_bits / 8 * board.clock_mhz / 1000
    assert board.config.dram_bytes_per_cycle * board.clock_mhz / 1000 == pytest.approx(
        min(board.dram_gb_per_second, board.port_gb_per_second)
    )


def test_bandwidth_in_the_documentation():
    """docs/boards.md: peak, share, assumed bandwidth, what the ports take, and what is used."""
    text = (BOARDS.parent / "docs" / "boards.md").read_text(encoding="utf-8")
    section = text.partition("### Bandwidth\n")[2].partition("\n\nThe peak is")[0]
    found = {}
    for line in re.findall(r"^\| `.*$", section, re.MULTILINE):
        numbers = [float(cell.rstrip(" %")) for cell in line.strip("|").split("|")[2:]]
        found |= dict.fromkeys(re.findall(r"`([\w-]+)`", line), numbers)
    assert found == {
        board.name: [
            board.dram_peak_gb_per_second,
            100 * board.dram_share,
            float(f"{board.dram_gb_per_second:.4g}"),
            float(f"{board.port_gb_per_second:.4g}"),
            float(f"{board.used_gb_per_second:.4g}"),
            round(100 * board.used_gb_per_second / board.dram_peak_gb_per_second),
        ]
        for board in map(load_board, NAMES)
    }


def test_synth_takes_a_boards_device(edgemoe, monkeypatch, tmp_path):
    chosen = []

    def synthesize(config, out, device, on_step):
        chosen.append((config, device))
        used = {"lut": 1, "ff": 1, "dsp": 1, "bram36": 1, "uram": 1}
        return {**used, "units": {"compute": used}, "fits": True, "tool": "yosys", "seconds": 1.0}

    monkeypatch.setattr("edgemoe.cli.synth.synthesize", synthesize)
    monkeypatch.setattr("edgemoe.cli.synth.require", lambda *_: None)
    assert "fits, by yosys" in edgemoe.ok("synth", "--config", "kv260", "--out", tmp_path)
    board = load_board("kv260")
    assert chosen == [(board.config, board.device)]
