"""The open flow's target file, the reading of nextpnr's report, and what the command says; the flow itself is slow."""

import dataclasses
import json
from pathlib import Path

import pytest

from edgemoe.boards import fit as flow
from edgemoe.boards.board import BOARDS, BoardError
from edgemoe.cli import fit as verb
from edgemoe.errors import SynthesisError
from edgemoe_hw.spec.config import PRESETS
from support.command_line import CommandLine

# What nextpnr 0.11.1 reported of UartTransmitter(25) on an LFE5U-25F, without locations and sources of its signals.
REPORT = json.loads(Path(__file__).with_name("nextpnr_report.json").read_text(encoding="utf-8"))


def fake_tools(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of Yosys, nextpnr and ecppack: what they would leave, and a record of their arguments."""
    calls = []

    def run(step: str, tool: str, arguments: list[str], folder: Path) -> None:
        calls.append([tool, *arguments])
        (folder / "report.json").write_text(json.dumps(REPORT))
        (folder / "ulx3s.bit").write_bytes(b"bits")

    monkeypatch.setattr(flow, "run_tool", run)
    monkeypatch.setattr("edgemoe_hw.verilog.generate", lambda config, component: "module")
    monkeypatch.setattr(flow.metadata, "version", lambda package: "1.2")
    return calls


def test_target() -> None:
    target = flow.load_target("ulx3s")
    assert flow.target_names() == ["ulx3s"]
    assert target.config is PRESETS["tiny"] and target.device == "LFE5U-85F" and "--85k" in target.nextpnr
    assert target.clock_mhz * 1e6 / target.baud == round(target.clock_mhz * 1e6 / target.baud)


@pytest.mark.parametrize(
    "text,message",
    [
        ("title = ", "target.toml"),
        ("title = 'x'\nspeed = 3", "unexpected keyword argument 'speed'"),
        ('preset = "huge"', "preset must be one of pynq-z2, .*, not 'huge'"),
        ('clock_mhz = "25"', "clock_mhz must be float, not '25'"),
        ("seed = 1.5", "seed must be int, not 1.5"),
        ("baud = true", "baud must be int, not True"),
        ("goal_mhz = 0", "goal_mhz must be positive, not 0"),
        ('nextpnr = "--85k"', "nextpnr must be list.str., not '--85k'"),
        ("nextpnr = [85]", "nextpnr must be list.str., not .85."),
    ],
)
def test_wrong_target_is_named(tmp_path: Path, text: str, message: str) -> None:
    source = (BOARDS / "ulx3s" / "target.toml").read_text(encoding="utf-8")
    if not text.startswith("title"):
        key = text.partition(" ")[0]
        (line,) = [line for line in source.splitlines() if line.startswith(f"{key} =")]
        text = source.replace(line, text)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "target.toml").write_text(text)
    with pytest.raises(BoardError, match=message):
        flow.load_target("mine", tmp_path)
    with pytest.raises(BoardError, match="target must be one of mine, not 'other'"):
        flow.load_target("other", tmp_path)


def test_pins_of_top_and_constraints_are_the_same() -> None:
    """A port without a site would be placed anywhere."""
    import re

    top = (BOARDS / "ulx3s" / "ulx3s.v").read_text(encoding="utf-8")
    ports: set[str] = set()
    for line in re.findall(r"^\s+(?:input|output|inout)\s+(.*?),?\s*(?://.*)?$", top, re.M):
        width, names = re.match(r"(?:\[(\d+):0\])?\s*(.*)", line).groups()  # type: ignore[union-attr]
        for name in re.findall(r"\w+", names):
            ports.update([name] if width is None else [f"{name}[{bit}]" for bit in range(int(width) + 1)])
    sites = re.findall(
        r'LOCATE COMP "(.*?)" SITE "(.*?)"; IOBUF PORT "(.*?)"',
        (BOARDS / "ulx3s" / "ulx3s.lpf").read_text(encoding="utf-8"),
    )
    assert {name for name, _, _ in sites} == ports and all(name == port for name, _, port in sites)
    assert len({site for _, site, _ in sites}) == len(sites) == len(ports)


def test_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls, steps = fake_tools(monkeypatch), []
    result = flow.fit(flow.load_target("ulx3s"), tmp_path, seed=7, on_step=steps.append)
    assert steps == ["synthesis", "place and route", "bitstream"] == list(result["seconds"])
    assert (result["device"], result["lanes_k"], result["lanes_n"], result["seed"]) == ("LFE5U-85F", 8, 8, 7)
    assert result["config_hash"] == PRESETS["tiny"].content_hash
    assert result["bitstream"]["bytes"] == 4
    assert calls[1][calls[1].index("--seed") + 1] == "7" and "--85k" in calls[1]
    assert (tmp_path / "ulx3s.lpf").exists()


def test_report_is_read() -> None:
    assert flow.fmax(REPORT) == pytest.approx(234.852, abs=1e-3)
    found = flow.utilisation(REPORT)
    assert found["lut"] == {"used": 41, "available": 24288} and found["ff"]["used"] == 19
    assert found["ebr"] == {"used": 0, "available": 56} and set(found) == {"lut", "ff", "dsp", "ebr", "io"}
    path = flow.critical_path(REPORT)  # the one between registers: 4.258 ns is 234.85 MHz
    assert (path["nanoseconds"], path["logic"], path["routing"], path["levels"]) == (4.26, 1.87, 2.38, 4)
    assert (path["begin"], path["end"], path["nets"]) == ("timer", "timer", ["timer[0]", "timer"])


def test_no_clock_is_refused() -> None:
    with pytest.raises(SynthesisError, match="no clock"):
        flow.fmax({"fmax": {}})


def test_tool_without_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless.py").write_text("import time\ndef run(arguments):\n    time.sleep(100)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SynthesisError, match="place and route did not end within .* try another --seed"):
        flow.run_tool("place and route", "endless.run", [], tmp_path, limit_seconds=1)


def test_failing_tool_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def run(argv):\n    print('ERROR: pin taken')\n    return 3\n")
    with pytest.raises(SynthesisError, match=r"place and route failed \(ERROR: pin taken\), see .*place-and-route.out"):
        flow.run_tool("place and route", "broken.run", [], tmp_path)


@pytest.mark.parametrize("clock,code", [(1.0, 0), (1000.0, 1)])
def test_command_fails_below_the_clock(
    edgemoe: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: float, code: int
) -> None:
    fake_tools(monkeypatch)
    target = flow.load_target("ulx3s")
    monkeypatch.setattr(verb, "load_target", lambda name: dataclasses.replace(target, clock_mhz=clock))
    monkeypatch.setattr(verb, "require", lambda *_: None)
    path = tmp_path / "fit.json"
    result = edgemoe("fit", "--out", tmp_path, "--json", path)
    assert result.code == code, result
    assert json.loads(path.read_text())["meets_clock"] == (code == 0)
    assert "MHz" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines() if str(path) not in line)


def test_a_slower_result_than_before_is_an_error(
    edgemoe: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_tools(monkeypatch)
    target = dataclasses.replace(flow.load_target("ulx3s"), least_mhz=300.0)
    monkeypatch.setattr(verb, "load_target", lambda name: target)
    monkeypatch.setattr(verb, "require", lambda *_: None)
    edgemoe("fit", "--out", tmp_path, "--json", tmp_path / "fit.json").failed("less than the 300 MHz")
