"""``docs/isa.md``, made from ``isa``: fields from their declarations, the other words from docstrings and comments."""

import ast
import enum
import inspect
import io
import tokenize
from collections.abc import Iterable

from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import ISA_VERSION
from edgemoe_hw.spec.fields import Field

__all__ = ["markdown", "member_comments"]

_INTRODUCTION = f"""# Commands

Generated from `hw/edgemoe_hw/spec/isa.py`; do not edit. ISA version {ISA_VERSION}.

A program is an array of {isa.COMMAND_BYTES}-byte commands in DRAM, at a multiple of 64. The first is BEGIN, the last
is END, and PROGRAM_COMMANDS ([registers](registers.md)) counts both. A command is little-endian: bit 0 is the lowest
bit of its first byte. Bits 0 to {isa.HEADER_BITS - 1} are the header; the payload begins at bit {isa.HEADER_BITS} and
its layout depends on the opcode. Bits that no field names must be 0.

The sequencer deals commands out, in program order, to one queue an engine. An engine takes its commands in that order
and counts those that it has finished; the head of a queue starts when all four counts have reached its `wait_*`
fields. A predicated command whose expert has no tokens counts as finished without doing anything. What the commands
compute is in [numerics](numerics.md), how the engines work is in [architecture](architecture.md).
"""


def member_comments(declared: type[enum.IntEnum]) -> dict[str, str]:
    """The comment beside each value of an enumeration's declaration, by name."""
    source = inspect.getsource(declared)
    by_line = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    targets = [(node.lineno, node.targets[0]) for node in body.body if isinstance(node, ast.Assign)]
    return {target.id: by_line.get(line, "") for line, target in targets if isinstance(target, ast.Name)}


def _summary(documented: object) -> str:
    return " ".join((inspect.getdoc(documented) or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _fields(fields: Iterable[Field], first_bit: int) -> list[str]:
    lines = ["| bits | field | width | meaning |", "|---|---|---|---|"]
    for field in fields:
        low = first_bit + field.offset
        bits = f"{low + field.width - 1}:{low}" if field.width > 1 else str(low)
        lines.append(f"| {bits} | `{field.name}` | {field.width} | {_cell(field.meaning)} |")
    return lines


def _values(values: type[enum.IntEnum]) -> list[str]:
    comments = member_comments(values)
    return [
        f"### {values.__name__}",
        "",
        _summary(values),
        "",
        "| value | name | meaning |",
        "|---|---|---|",
        *(f"| {value.value} | {value.name} | {_cell(comments[value.name])} |" for value in values),
        "",
    ]


def markdown() -> str:
    """The page."""
    lines = [
        _INTRODUCTION,
        "## Opcodes",
        "",
        _summary(isa.Opcode),
        "",
        "| opcode | name | engine | payload |",
        "|---|---|---|---|",
    ]
    for opcode, declared in isa.PAYLOADS.items():
        engine = isa.ENGINES[opcode].name if opcode in isa.ENGINES else "sequencer"
        payload = f"{declared.width()} bits" if declared.width() else "none"
        lines.append(f"| {opcode.value} | {opcode.name} | {engine} | {payload} |")
    lines += ["", "## Header", "", _summary(isa.Header), "", *_fields(isa.HEADER_FIELDS, 0), ""]
    for opcode, declared in isa.PAYLOADS.items():
        lines += [f"## {opcode.name}", ""]
        if declared.fields():
            lines += [_summary(declared), "", *_fields(declared.fields(), isa.HEADER_BITS), ""]
        else:
            lines += [f"{_summary(declared)} No payload.", ""]
    lines += ["## Values", ""]
    for values in (isa.Engine, isa.Memory, isa.Base, isa.Source, isa.Mode, isa.RowFactor):
        lines += _values(values)
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
