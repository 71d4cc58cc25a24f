"""The C runtime's headers are what the contract gives, and a C compiler reads them so."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgemoe_hw.spec import isa, regs
from edgemoe_hw.spec.c_headers import HEADERS
from edgemoe_hw.spec.config import ISA_VERSION

INCLUDE = Path(__file__).parents[2] / "sw" / "c" / "include"


@pytest.mark.parametrize("name", HEADERS)
def test_header_is_fresh(name):
    file = INCLUDE / f"edgemoe_{name}.h"
    wanted = f"regenerate: python -m edgemoe_hw.spec.c_headers {name} > sw/c/include/{file.name}"
    assert file.read_text(encoding="utf-8") == HEADERS[name](), wanted
    assert all(len(line) <= 120 for line in HEADERS[name]().splitlines())


def macros(program):
    """Names and numbers of the macros of both headers, by the preprocessor."""
    text = "".join(f'#include "edgemoe_{name}.h"\n' for name in HEADERS)
    command = [program, "-std=c99", "-E", "-dM", "-I", str(INCLUDE), "-"]
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    pairs = re.findall(r"^#define (EMOE_\w+) (0x[0-9a-f]+|\d+)u$", found, re.M)
    return {name: int(value, 0) for name, value in pairs}


@pytest.fixture(scope="module")
def defined():
    program = shutil.which("gcc") or shutil.which("cc")
    if program is None:
        pytest.skip("this machine has no C compiler (gcc)")
    return macros(program)


def test_registers(defined):
    for register in regs.REGISTERS:
        assert defined[f"EMOE_REG_{register.name}"] == register.offset
        for field in register.fields:
            if field.name != "value":
                mask = ((1 << field.width) - 1) << field.lsb
                assert defined[f"EMOE_{register.name}_{field.name.upper()}"] == mask
    assert all(defined[f"EMOE_ERROR_{code.name}"] == code for code in regs.ErrorCode)
    assert defined["EMOE_ID"] == regs.ID


def test_commands(defined):
    assert defined["EMOE_ISA_VERSION"] == ISA_VERSION
    for opcode, payload in isa.PAYLOADS.items():
        assert defined[f"EMOE_OPCODE_{opcode.name}"] == opcode
        assert defined[f"EMOE_{opcode.name}_BITS"] == payload.width()
        for field in payload.fields():
            name = f"EMOE_{opcode.name}_{field.name.upper()}"
            assert (defined[f"{name}_LSB"], defined[f"{name}_WIDTH"]) == (isa.HEADER_BITS + field.offset, field.width)
    for field in isa.HEADER_FIELDS:
        assert defined[f"EMOE_HEADER_{field.name.upper()}_LSB"] == field.offset
    for values in (isa.Engine, isa.Memory, isa.Base, isa.Source, isa.Mode):
        assert all(defined[f"EMOE_{values.__name__.upper()}_{value.name}"] == value for value in values)
