"""The way to a bitstream: what is checked before Vivado, what becomes of its results."""

import dataclasses
import hashlib
import json
import os

import pytest

from edgemoe.boards import BoardError, bitstream, load_board, utilisation
from edgemoe.boards.bitstream import BUILD_TCL, build_bitstream, find_bitstream
from edgemoe.cli import boards as command
from edgemoe_hw.spec.config import ISA_VERSION

BOARD = load_board("pynq-z2")
RESULT = {"lut": 30_000, "ff": 20_000, "dsp": 218, "bram36": 132.0, "cells": {}, "tool": "yosys", "seconds": 1.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Neither Yosys nor Amaranth, which have tests of their own."""
    monkeypatch.setattr(bitstream, "utilisation", lambda board, on_step: RESULT)
    monkeypatch.setattr(bitstream, "rtl_text", lambda config: f"module {config.name}")


def test_results_have_one_hashed_name(vivado, tmp_path):
    out = tmp_path / "out"
    path = build_bitstream(BOARD, out)
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments == [
        "-mode",
        "batch",
        "-notrace",
        "-nojournal",
        "-log",
        str(out / "pynq-z2" / "vivado.log"),
        "-source",
        str(BUILD_TCL),
        "-tclargs",
        str(out / "pynq-z2" / "parameters.tcl"),
    ]
    assert (out / "pynq-z2" / "edgemoe.v").read_text() == "module pynq-z2"

    manifest = json.loads(path.read_text())
    bit, hwh = path.with_suffix(".bit"), path.with_suffix(".hwh")
    content = hashlib.sha256(bit.read_bytes() + hwh.read_bytes()).hexdigest()
    assert path.stem == f"pynq-z2-{content[:12]}"
    assert manifest["files"] == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (bit, hwh)}
    assert manifest["config"] == BOARD.config.to_dict()
    assert manifest["config_hash"] == BOARD.config.content_hash and manifest["isa_version"] == ISA_VERSION
    assert (manifest["board"], manifest["part"]) == ("pynq-z2", BOARD.part)
    assert manifest["clock_mhz"] == pytest.approx(BOARD.pl_clock_mhz) and manifest["clock_mhz"] <= BOARD.clock_mhz
    assert manifest["vivado"] == "2024.1" and manifest["wns_ns"] == 0.25
    assert len(manifest["sources"].partition("-")[0]) in (7, 40)  # a commit, or "unknown"
    assert find_bitstream(BOARD, out) == path


def test_other_contents_have_another_name(vivado, tmp_path, monkeypatch):
    first = build_bitstream(BOARD, tmp_path)
    assert build_bitstream(BOARD, tmp_path) == first
    monkeypatch.setenv("STUB_BITS", "others")
    assert build_bitstream(BOARD, tmp_path) != first


def test_failed_timing_leaves_no_bitstream(vivado, tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_WNS", "-0.5")
    with pytest.raises(
        BoardError, match=r"Vivado failed \(1\): timing is not met at 142.857143 MHz: worst setup slack -0.5"
    ):
        build_bitstream(BOARD, tmp_path)
    assert [*tmp_path.rglob("*.bit"), *tmp_path.glob("*.json")] == []


def test_what_does_not_fit_is_refused_before_vivado(vivado, tmp_path, monkeypatch):
    large = {**RESULT, "dsp": 221, "bram36": 140.5}
    monkeypatch.setattr(bitstream, "utilisation", lambda board, on_step: large)
    with pytest.raises(
        BoardError,
        match=r"pynq-z2 does not fit xc7z020 \(dsp: 221 of 220; bram36: 140.5 of 140\): make bitstream "
        r"BOARD=pynq-z2-small has smaller memories \(compile bundles with --config pynq-z2-small\); edgemoe explore "
        r"--board pynq-z2 finds others",
    ):
        build_bitstream(BOARD, tmp_path)
    assert not (tmp_path / "arguments").exists()


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("pynq-z2", "pynq-z2-small"),
        ("pynq-z2-large", "pynq-z2-small"),
        ("kr260-large", "kr260-small"),
        ("aup-zu3-large", "aup-zu3"),
        ("pynq-z2-small", None),
        ("zcu102", None),
    ],
)
def test_what_fits_instead(name, smaller):
    """A configuration that there is, and that is smaller; or the file to change."""
    found = utilisation.what_fits(load_board(name))
    if smaller is None:
        assert found.startswith(f"make it smaller in boards/{load_board(name).file.parent.name}/board.toml; ")
    else:
        assert found.startswith(f"make bitstream BOARD={smaller} has smaller memories ")


@pytest.mark.parametrize(
    "error",
    [
        "ERROR: [Place 30-640] Place Check : This design requires more RAMB36/FIFO cells than are available in the "
        "target device. This design requires 152 of such cell types but only 140 compatible sites are available",
        "ERROR: [DRC UTLZ-1] Resource utilization: RAMB18 and RAMB36/FIFO over-utilized in Top Level Design",
        "ERROR: [Synth 8-5834] Design needs 300 RAMB18 which is more than device capacity of 280",
    ],
)
def test_block_ram_that_does_not_suffice(program, tmp_path, error):
    """By Yosys it does, and Vivado maps otherwise: the message names what is smaller."""
    program("vivado", f"echo '{error}'; exit 1")
    with pytest.raises(BoardError) as caught:
        build_bitstream(BOARD, tmp_path)
    assert error.removeprefix("ERROR: ") in str(caught.value)
    assert "; make bitstream BOARD=pynq-z2-small has smaller memories" in str(caught.value)


def test_no_vivado(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match="needs AMD Vivado 2022.1 or newer, and 'vivado' is not on PATH") as error:
        build_bitstream(BOARD, tmp_path)
    assert BOARD.part in str(error.value) and "3.1 with 2024.1" in str(error.value)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        # Vivado's number, and what build.tcl makes of it.
        (
            "ERROR: [Common 17-345] A valid license was not found for 'Synthesis'\nERROR: [Vivado 12-1] later\n"
            "edgemoe: synth_1 ended with 'synth_design ERROR'; see its log\n    while executing",
            r"\[Common 17-345\] A valid license was not found for 'Synthesis'; synth_1 ended with 'synth_design ERROR'",
        ),
        ("ERROR: [Coretcl 2-106] Part not found.", r"\[Coretcl 2-106\] Part not found"),
        # Its own copy of the script, and of the command that failed.
        (
            '#     error "edgemoe: this Vivado has no IP $vlnv"\n'
            "edgemoe: this Vivado has no IP a\n    while executing\n"
            '"error "edgemoe: this Vivado has no IP $vlnv""',
            r"\(1\): this Vivado has no IP a\. Its output",
        ),
        ('source build.tcl\ninvalid command name "lmop"\n    while executing\n"lmop"', 'invalid command name "lmop"'),
        ("", "no message"),
    ],
)
def test_message_of_a_failure(program, tmp_path, output, reason):
    (tmp_path / "output").write_text(output)
    program("vivado", f'cat "{tmp_path}/output"; exit 1')
    with pytest.raises(BoardError, match=reason):
        build_bitstream(BOARD, tmp_path / "out")


def test_results_of_an_earlier_run_do_not_count(vivado, program, tmp_path):
    build_bitstream(BOARD, tmp_path)
    program("vivado", "exit 0")
    with pytest.raises(BoardError, match="Vivado ended without edgemoe.bit, edgemoe.hwh, result.json"):
        build_bitstream(BOARD, tmp_path)


def test_the_manifest_has_the_clock_that_was_timed(vivado, tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_FREQ_HZ", "138888889")
    assert json.loads(build_bitstream(BOARD, tmp_path).read_text())["clock_mhz"] == 138.888889


def test_vivado_without_results(program, tmp_path):
    program("vivado", "exit 0")
    with pytest.raises(BoardError, match="Vivado ended without edgemoe.bit, edgemoe.hwh, result.json"):
        build_bitstream(BOARD, tmp_path)


def test_find_bitstream_refuses(vivado, tmp_path):
    with pytest.raises(BoardError, match="there is no bitstream of pynq-z2 .*: make bitstream BOARD=pynq-z2"):
        find_bitstream(BOARD, tmp_path)
    path = build_bitstream(BOARD, tmp_path)
    other = dataclasses.replace(BOARD, config=dataclasses.replace(BOARD.config, lanes_n=16))
    with pytest.raises(BoardError, match=f"is of configuration {BOARD.config.content_hash[:16]}"):
        find_bitstream(other, tmp_path)
    path.with_suffix(".bit").write_text("damaged")
    with pytest.raises(BoardError, match="missing or was changed"):
        find_bitstream(BOARD, tmp_path)


def test_newest_bitstream_is_taken(vivado, tmp_path, monkeypatch):
    old = build_bitstream(BOARD, tmp_path)
    os.utime(old, (1, 1))
    monkeypatch.setenv("STUB_BITS", "new")
    new = build_bitstream(BOARD, tmp_path)
    assert find_bitstream(BOARD, tmp_path) == new


def test_utilisation_is_shared_and_kept(tmp_path, monkeypatch):
    """Boards of one configuration and family share a run; another RTL does not."""
    runs, verilog = [], ["module edgemoe"]

    def synthesize(config, out_dir, *, device, on_step):
        out_dir.mkdir(parents=True)
        runs.append((config.name, device.name))
        return RESULT

    monkeypatch.setattr(utilisation, "synthesize", synthesize)
    monkeypatch.setattr(utilisation.metadata, "version", lambda package: "1.2")
    monkeypatch.setattr("edgemoe_sim.build.accelerator_verilog", lambda config: f"{verilog[0]} {config.content_hash}")
    for name in ("kv260", "kr260", "kv260"):
        assert utilisation.utilisation(load_board(name), tmp_path) == RESULT
    assert runs == [("kv260", "xck26")]
    verilog[0] = "module changed"
    utilisation.utilisation(load_board("kr260"), tmp_path)
    assert runs[1:] == [("kr260", "xck26")]


def test_utilisation_of_another_run_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(utilisation, "synthesize", lambda *_, **__: pytest.fail("synthesized again"))
    monkeypatch.setattr(utilisation.metadata, "version", lambda package: "1.2")
    monkeypatch.setattr("edgemoe_sim.build.accelerator_verilog", lambda config: config.content_hash)
    assert utilisation.keep(load_board("kv260"), RESULT, tmp_path).parent == tmp_path
    assert utilisation.utilisation(load_board("kr260"), tmp_path) == RESULT


def test_utilisation_row_and_command(edgemoe, tmp_path, monkeypatch):
    kv260 = load_board("kv260")
    row = utilisation.utilisation_row(kv260, {**RESULT, "cells": {"URAM288": 3}})
    assert row["used"] == {"lut": 30_000, "ff": 20_000, "dsp": 218, "bram36": 132.0, "uram": 3}
    assert row["available"] == {"lut": 117_120, "ff": 234_240, "dsp": 1248, "bram36": 144, "uram": 64}
    assert row["fits"] and "DS987" in row["capacity_source"]

    monkeypatch.setattr(command, "utilisation", lambda board, on_step: {**RESULT, "dsp": 300})
    path = tmp_path / "boards.json"
    monkeypatch.setattr(command, "require", lambda *_: None)
    arguments = ["boards", "--utilisation", "--json", path, "--only", "kv260", "--only"]
    assert max(map(len, edgemoe.ok(*arguments, "zcu104").splitlines()[:-1])) <= 80
    assert [row["board"] for row in json.loads(path.read_text())] == ["kv260", "zcu104"]
    edgemoe(*arguments, "pynq-z2").failed("configurations of pynq-z2 do not fit")
