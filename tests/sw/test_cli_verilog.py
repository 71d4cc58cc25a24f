"""``edgemoe verilog``: the Verilog that is simulated, and the configuration as a file that every verb takes."""

import dataclasses

import pytest

from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_sim.build import accelerator_verilog


def test_writes_what_is_simulated(edgemoe, tmp_path):
    path = tmp_path / "new" / "accelerator.v"
    shown = edgemoe.ok("verilog", "--config", "tiny", "--out", path)
    assert path.read_text(encoding="utf-8") == accelerator_verilog(PRESETS["tiny"])
    assert shown == f"{path}: module edgemoe of tiny, {path.stat().st_size:,} bytes\n"


def test_default_name_is_the_configurations(edgemoe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    edgemoe.ok("verilog", "--config", "tiny")
    assert (tmp_path / "build" / "tiny.v").is_file()


@pytest.mark.parametrize("name", ["pynq-z2", "kv260"])
def test_configuration_to_change(edgemoe, tmp_path, name):
    path = tmp_path / "mine.json"
    shown = edgemoe.ok("verilog", "--config", name, "--json", path)
    config = AcceleratorConfig.from_json(path.read_text(encoding="utf-8"))
    assert config.name == name and config.content_hash[:16] in shown
    assert list(tmp_path.iterdir()) == [path]  # without --out no Verilog
    changed = dataclasses.replace(config, name="narrow", lanes_n=16)
    path.write_text(changed.to_json(), encoding="utf-8")
    edgemoe.ok("verilog", "--config", path, "--json", tmp_path / "again.json")
    assert AcceleratorConfig.from_json((tmp_path / "again.json").read_text(encoding="utf-8")) == changed


def test_configuration_alone_needs_no_extra(edgemoe, tmp_path, monkeypatch):
    monkeypatch.setattr("edgemoe.cli.verilog.require", lambda *_: pytest.fail("an extra is asked for"))
    edgemoe.ok("verilog", "--config", "tiny", "--json", tmp_path / "tiny.json")


def test_nothing_is_replaced(edgemoe, tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(PRESETS["tiny"].to_json(), encoding="utf-8")
    before = path.read_bytes()
    edgemoe("verilog", "--config", path, "--out", path).refused("is read and would be replaced")
    edgemoe("verilog", "--config", path, "--json", path).refused("is read and would be replaced")
    other = tmp_path / "x"
    edgemoe("verilog", "--config", path, "--out", other, "--json", other).refused("give them different names")
    assert path.read_bytes() == before and not other.exists()
