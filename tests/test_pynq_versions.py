"""`make test-pynq`: which packages each PYNQ is tested with, and what happens where one cannot be."""

import subprocess
import sys
from pathlib import Path

import pynq_versions
import pytest
from pynq_versions import VERSIONS, constraints, main, prepare

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_constraints(version):
    """Every package has one pin, whatever the project's own is; the images' Python comes first."""
    lines = [line for line in constraints(version).splitlines() if "==" in line and ";" not in line]
    names = [line.partition("==")[0] for line in lines]
    assert len(names) == len(set(names)) and f"pynq=={version}" in lines
    assert set(VERSIONS[version].pins) <= set(lines) and not set(VERSIONS[version].loose) & set(names)
    assert VERSIONS[version].pythons[0] == "3.10"


def test_versions_are_the_documented_ones():
    table = (ROOT / "docs" / "pynq.md").read_text(encoding="utf-8").partition("## Versions")[2]
    assert [line.split()[1] for line in table.splitlines() if line.startswith(("| 3", "| 4"))] == list(VERSIONS)


def test_no_python(tmp_path, monkeypatch, capsys):
    """An error with what to do; the other versions are still tested."""
    monkeypatch.setattr(pynq_versions, "results_root", lambda: tmp_path)  # not where environments may be
    monkeypatch.setattr(pynq_versions, "find_python", lambda version: None)
    with pytest.raises(RuntimeError, match=r"pynq 3.0.1 needs Python 3.10, and this machine has none: install one"):
        prepare("3.0.1", tmp_path / "none")
    assert main(["3.0.1", "3.1.2"]) == 1
    out, err = capsys.readouterr()
    assert out == "pynq: 3.0.1, 3.1.2 FAILED\n" and len(err.splitlines()) == 2


def test_what_is_run(tmp_path, monkeypatch, capsys):
    """An environment is made once; the rest of the line goes to pytest."""
    monkeypatch.setattr(pynq_versions, "results_root", lambda: tmp_path)
    monkeypatch.setattr(pynq_versions, "find_python", lambda version: Path(sys.executable))
    calls = []

    def run(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(pynq_versions.subprocess, "run", run)
    assert main(["3.0.1", "--", "-x"]) == 0 and main(["3.0.1"]) == 0
    assert capsys.readouterr().out.endswith("pynq 3.0.1: all passed\n")
    environment = tmp_path / "pynq-3.0.1"
    made = [command for command in calls if "pytest" not in command[2:4]]
    assert made[0] == [sys.executable, "-m", "venv", "--clear", str(environment)]
    assert "pynq==3.0.1" in made[2] and "pynqmetadata==0.1.2" in made[2] and len(made) == 4
    tests = [command for command in calls if command[1:3] == ["-m", "pytest"]]
    assert len(tests) == 2 and tests[0][0] == str(environment / "bin" / "python") and tests[0][-1] == "-x"
    assert {path for path in tests[0] if path.startswith("tests/")} == set(pynq_versions.TESTS)
    assert all((ROOT / path).is_file() for path in pynq_versions.TESTS)


def test_unknown_version(capsys):
    with pytest.raises(SystemExit):
        main(["2.7"])
    assert "VERSION must be one of 3.0.1, 3.1.2, 4.0.0, not 2.7" in capsys.readouterr().err
