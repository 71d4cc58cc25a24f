"""The register map: its generated page is fresh, and the host can use it without Amaranth."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgemoe_hw.spec import regs

ROOT = Path(__file__).parents[2]


def test_page_is_fresh():
    text = (ROOT / "docs" / "registers.md").read_text(encoding="utf-8")
    assert text == regs.markdown(), "docs/registers.md is not what regs.markdown() gives"


def test_host_map():
    host = regs.host_map()
    assert host["ID"]["offset"] == 0 and host["PROGRAM_ADDR"]["words"] == 2
    assert host["STATUS"]["fields"]["irq"] == {"lsb": 3, "width": 1, "access": "w1c"}
    assert set(regs.ERROR_TEXT) == set(regs.ErrorCode)


def test_unknown_register_is_named():
    with pytest.raises(KeyError, match="register must be one of ID, .*not 'NOPE'"):
        regs.find("NOPE")


def test_needs_no_amaranth():
    code = "import sys, edgemoe_hw.spec.regs; print('amaranth' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "hw", capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
