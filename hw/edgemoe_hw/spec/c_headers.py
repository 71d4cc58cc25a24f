"""The C runtime's headers (``sw/c/include``), made from the register map, the ISA and the configuration's fields.

``python -m edgemoe_hw.spec.c_headers regs > sw/c/include/edgemoe_regs.h``, and ``isa`` likewise.
"""

import dataclasses
import enum
import sys
from collections.abc import Callable, Iterable

from edgemoe_hw.spec import constants, isa, regs
from edgemoe_hw.spec.config import ISA_VERSION, NOT_HASHED, AcceleratorConfig
from edgemoe_hw.spec.fields import Field
from edgemoe_hw.spec.isa_docs import member_comments

__all__ = ["HEADERS", "isa_header", "regs_header"]


_LONGEST_LINE = 120


def _define(name: str, value: str, comment: str = "") -> str:
    """A macro, with its meaning behind or above it."""
    line = f"#define {name} {value}"
    if not comment:
        return line
    beside = f"{line} /* {comment} */"
    return beside if len(beside) <= _LONGEST_LINE else f"/* {comment} */\n{line}"


def _values(values: type[enum.IntEnum], prefix: str, comments: dict[str, str]) -> list[str]:
    return [
        "",
        *(_define(f"EMOE_{prefix}_{value.name}", f"{value.value}u", comments[value.name]) for value in values),
        _define(f"EMOE_{prefix}_LARGEST", f"{max(values).value}u"),
    ]


def _guarded(file: str, source: str, lines: Iterable[str]) -> str:
    guard = file.upper().replace(".", "_")
    head = [f"/* Generated from {source}; do not edit. */", f"#ifndef {guard}", f"#define {guard}"]
    return "\n".join([*head, *lines, "", f"#endif /* {guard} */"]) + "\n"


def regs_header() -> str:
    """``edgemoe_regs.h``: offsets of registers, masks of their fields, error codes and what they mean."""
    lines = [
        "",
        "/* Registers of 32 bits on AXI4-Lite. One with a _WORDS of 2 has its high half 4 bytes above its low half;",
        "   reading the low half latches the high one. */",
        _define("EMOE_REG_ADDRESS_BITS", f"{regs.ADDRESS_BITS}u"),
        _define("EMOE_ID", f"{regs.ID:#010x}u", "ASCII EMOE"),
    ]
    for register in regs.REGISTERS:
        name = f"EMOE_REG_{register.name}"
        lines += ["", f"/* {register.description} */", _define(name, f"{register.offset:#05x}u")]
        if register.words > 1:
            lines.append(_define(f"{name}_WORDS", f"{register.words}u"))
        if register.count > 1:
            lines.append(_define(f"{name}_COUNT", f"{register.count}u", "4 bytes apart"))
        for field in register.fields:
            if field.name != "value":
                mask = ((1 << field.width) - 1) << field.lsb
                comment = f"{field.access}: {field.description}"
                lines.append(_define(f"EMOE_{register.name}_{field.name.upper()}", f"{mask:#x}u", comment))
    lines += ["", "/* Error codes */"]
    lines += [_define(f"EMOE_ERROR_{code.name}", f"{code.value}u", regs.ERROR_TEXT[code]) for code in regs.ErrorCode]
    lines += ["", "/* X(code, name, meaning) of each. */", "#define EMOE_ERROR_CODES(X) \\"]
    rows = [f'    X({code.value}u, "{code.name}", \\\n      "{regs.ERROR_TEXT[code]}")' for code in regs.ErrorCode]
    lines.append(" \\\n".join(rows))
    return _guarded("edgemoe_regs.h", "hw/edgemoe_hw/spec/regs.py", lines)


def _fields(prefix: str, fields: Iterable[Field], first_bit: int) -> list[str]:
    lines: list[str] = []
    for field in fields:
        name, meaning = f"EMOE_{prefix}_{field.name.upper()}", field.meaning.replace("*/", "* /")
        lines += [_define(f"{name}_LSB", f"{first_bit + field.offset}u", meaning)]
        lines += [_define(f"{name}_WIDTH", f"{field.width}u")]
    return lines


def isa_header() -> str:
    """``edgemoe_isa.h``: opcodes, places of all fields of commands, and what a configuration's hash is made of."""
    lines = [
        "",
        _define("EMOE_ISA_VERSION", f"{ISA_VERSION}u"),
        _define("EMOE_COMMAND_BYTES", f"{isa.COMMAND_BYTES}u", "bits count from the first byte's lowest"),
        _define("EMOE_HEADER_BITS", f"{isa.HEADER_BITS}u"),
        _define("EMOE_MAX_BLOCKS", f"{constants.MAX_BLOCKS}u", "MoE blocks whose expert loads are kept"),
        _define("EMOE_MAX_EXPERTS", f"{constants.MAX_EXPERTS}u"),
        _define("EMOE_ADDRESS_BITS", f"{constants.ADDRESS_BITS}u", "of a byte address in DRAM"),
        "",
        "/* Opcodes, and the bits of each one's payload. */",
    ]
    for opcode, payload in isa.PAYLOADS.items():
        lines.append(_define(f"EMOE_OPCODE_{opcode.name}", f"{opcode.value}u"))
        lines.append(_define(f"EMOE_{opcode.name}_BITS", f"{payload.width()}u"))
    lines += ["", "/* X(name, opcode, bits) of all. */", "#define EMOE_OPCODES(X) \\"]
    rows = [f"    X({opcode.name}, {opcode.value}u, {payload.width()}u)" for opcode, payload in isa.PAYLOADS.items()]
    lines.append(" \\\n".join(rows))
    lines += ["", "/* X(name, engine, opcode) of each engine and of the commands that it executes. */"]
    lines.append("#define EMOE_ENGINES(X) \\")
    rows = [f"    X({engine.name}, {engine.value}u, {opcode.value}u)" for opcode, engine in isa.ENGINES.items()]
    lines.append(" \\\n".join(rows))
    for values in (isa.Engine, isa.Memory, isa.Base, isa.Source, isa.Mode, isa.RowFactor):
        prefix = "ROW_FACTOR" if values is isa.RowFactor else values.__name__.upper()
        lines += _values(values, prefix, member_comments(values))
    lines += ["", "/* Places of fields: the lowest bit in the command, and how many. */"]
    lines += _fields("HEADER", isa.HEADER_FIELDS, 0)
    for opcode, payload in isa.PAYLOADS.items():
        if payload.fields():
            lines += ["", f"/* {opcode.name} */", *_fields(opcode.name, payload.fields(), isa.HEADER_BITS)]
    hashed = [field.name for field in dataclasses.fields(AcceleratorConfig) if field.name not in NOT_HASHED]
    lines += [
        "",
        "/* X(name) of the fields of a configuration that its hash is made of, in order, and the ISA's version. */",
        "#define EMOE_CONFIG_HASHED(X) \\",
        " \\\n".join(f"    X({name})" for name in sorted([*hashed, "isa_version"])),
        "",
        "/* The other fields of a configuration. */",
        "#define EMOE_CONFIG_FREE(X) \\",
        " \\\n".join(f"    X({name})" for name in NOT_HASHED),
    ]
    return _guarded("edgemoe_isa.h", "hw/edgemoe_hw/spec/isa.py and config.py", lines)


HEADERS: dict[str, Callable[[], str]] = {"regs": regs_header, "isa": isa_header}


if __name__ == "__main__":
    print(HEADERS[sys.argv[1]](), end="")
