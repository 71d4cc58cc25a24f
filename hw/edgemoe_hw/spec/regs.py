"""The AXI4-Lite register map, declared once: RTL, host constants and documentation are made from it.

Plain Python, without Amaranth, so that the host on a board can import it. All registers are 32 bits wide; one that
is wider takes two, LO at its offset and HI at offset + 4. Reading LO of a read-only register latches its HI, so that
LO, then HI, is one consistent value even while it counts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edgemoe_hw.spec import constants
from edgemoe_hw.spec.constants import COUNT_BITS, MAX_BLOCKS, MAX_EXPERTS, TOKEN_BITS
from edgemoe_hw.spec.isa import ENGINES, Base, Engine

__all__ = [
    "ADDRESS_BITS",
    "ID",
    "REGISTERS",
    "ErrorCode",
    "Field",
    "Register",
    "find",
    "host_map",
    "markdown",
]

ID = 0x45_4D_4F_45  # "EMOE"
ADDRESS_BITS = 12


class ErrorCode(enum.IntEnum):
    """Why a program was stopped; ERROR_CODE holds the first one."""

    NONE = 0
    ILLEGAL_OPCODE = 1
    ISA_VERSION = 2
    CONFIG_HASH = 3
    PROGRAM_LENGTH = 4
    ADDRESS_RANGE = 5
    READ_BUS = 6
    WRITE_BUS = 7
    QUEUE_OVERFLOW = 8
    WATCHDOG = 9
    REGION = 10


ERROR_TEXT = {
    ErrorCode.NONE: "no error",
    ErrorCode.ILLEGAL_OPCODE: "a command's opcode is unknown, or the first command is not BEGIN",
    ErrorCode.ISA_VERSION: "BEGIN names another ISA version",
    ErrorCode.CONFIG_HASH: "BEGIN names another configuration",
    ErrorCode.PROGRAM_LENGTH: "BEGIN, END and PROGRAM_COMMANDS disagree about the number of commands",
    ErrorCode.ADDRESS_RANGE: "a command's memory, base or rows do not exist",
    ErrorCode.READ_BUS: "a read was answered with an error response",
    ErrorCode.WRITE_BUS: "a write was answered with an error response",
    ErrorCode.QUEUE_OVERFLOW: "more tokens than an expert's queue holds, or tokens faster than the gate takes",
    ErrorCode.WATCHDOG: "WATCHDOG cycles passed without progress",
    ErrorCode.REGION: "a LOAD or STORE leaves its region of DRAM, or a STORE is not to OUTPUT; nothing was transferred",
}


@dataclass(frozen=True)
class Field:
    """Bits of a register.

    ``access``: ``ro`` (the hardware's value), ``rw`` (stored), ``strobe`` (writing 1 acts once, reads 0),
    ``w1c`` (the hardware's value, writing 1 clears it).
    """

    name: str
    lsb: int
    width: int
    access: str
    description: str = ""
    reset: int = 0


@dataclass(frozen=True)
class Register:
    """One register, or ``count`` equal ones 4 bytes apart."""

    name: str
    offset: int
    description: str
    fields: tuple[Field, ...]
    count: int = 1

    @property
    def width(self) -> int:
        return max(field.lsb + field.width for field in self.fields)

    @property
    def words(self) -> int:
        """32-bit words of one element."""
        return -(-self.width // 32)

    def port(self, field: Field) -> str:
        """Name of the field's port of ``RegisterFile``."""
        name = self.name.lower()
        return name if field.name == "value" else f"{name}_{field.name}"


def _one(name: str, offset: int, width: int, access: str, description: str, reset: int = 0, count: int = 1) -> Register:
    return Register(name, offset, description, (Field("value", 0, width, access, reset=reset),), count)


def _counter(name: str, offset: int, description: str) -> Register:
    return _one(name, offset, 64, "ro", description)


#: Why there was no MATMUL to do: what the next one, or END, waited for.
_STALLS = dict(
    zip(
        Engine,
        (
            "the next MATMUL waited for a LOAD (weights or input)",
            "the next MATMUL waited for an earlier one, or the pipeline filled",
            "the next MATMUL waited for a LAYERNORM",
            "the next MATMUL, or END, waited for a STORE",
        ),
        strict=True,
    )
)

#: What a region of DRAM is for; a LOAD or a STORE that would leave it stops the program.
_REGIONS = {
    Base.WEIGHTS: "LOADs stay inside",
    Base.INPUT: "LOADs stay inside",
    Base.OUTPUT: "LOADs stay inside, and STOREs, which write nowhere else",
}

REGISTERS: tuple[Register, ...] = (
    _one("ID", 0x000, 32, "ro", f"{ID:#010x}, ASCII EMOE"),
    _one("ISA_VERSION", 0x004, 16, "ro", "version of the command layouts"),
    _one("CONFIG_HASH", 0x008, 32, "ro", "AcceleratorConfig.hash32"),
    Register(
        "CONTROL",
        0x010,
        "starts and stops",
        (
            Field("start", 0, 1, "strobe", "start the program; ignored while busy"),
            Field("soft_reset", 1, 1, "strobe", "stop, let outstanding bus transfers end, forget errors"),
            Field("irq_enable", 2, 1, "rw", "drive the interrupt output"),
        ),
    ),
    Register(
        "STATUS",
        0x014,
        "what the accelerator does",
        (
            Field("busy", 0, 1, "ro", "a program runs, or transfers of a stopped one are outstanding"),
            Field("done", 1, 1, "ro", "the last program reached END; cleared by start"),
            Field("error", 2, 1, "ro", "the last program was stopped by an error; cleared by start and soft_reset"),
            Field("irq", 3, 1, "w1c", "interrupt pending: done or error"),
        ),
    ),
    _one("ERROR_CODE", 0x018, 8, "ro", "first error (ErrorCode)"),
    _one("ERROR_COMMAND", 0x01C, COUNT_BITS, "ro", "index of the command that caused it"),
    _one("PROGRAM_ADDR", 0x020, constants.ADDRESS_BITS, "rw", "byte address of the program, a multiple of 64"),
    _one("PROGRAM_COMMANDS", 0x028, COUNT_BITS, "rw", "commands of the program, BEGIN and END included"),
    _one("WATCHDOG", 0x02C, 32, "rw", "cycles without progress that stop a program; 0: never"),
    *(
        _one(f"BASE_{base.name}", 0x030 + 8 * base, constants.ADDRESS_BITS, "rw", f"byte address of region {base.name}")
        for base in Base
    ),
    _one("MOE_BLOCK", 0x048, 4, "rw", "MoE block that EXPERT_LOAD shows, in the program's order, from 0"),
    *(
        _one(f"SIZE_{base.name}", 0x04C + 4 * base, constants.SIZE_BITS, "rw", f"bytes of region {base.name}: {use}")
        for base, use in _REGIONS.items()
    ),
    _counter("CYCLES", 0x100, "cycles from start to END; the sum of ARRAY_BUSY and all stalls"),
    _counter("ARRAY_BUSY", 0x108, "cycles in which the array took operands"),
    *(_counter(f"STALL_{engine.name}", 0x110 + 8 * engine, text) for engine, text in _STALLS.items()),
    _counter("STALL_EPILOGUE", 0x130, "the array waited for the vector unit"),
    _counter("STALL_COMMAND", 0x138, "there was no MATMUL to do"),
    _counter("BYTES_READ", 0x140, "bytes read by all masters, the program's own included"),
    _counter("BYTES_WRITTEN", 0x148, "bytes written"),
    _counter("COMMANDS_DONE", 0x150, "commands finished by all engines"),
    *(
        _one(f"DONE_{engine.name}", 0x180 + 4 * engine, COUNT_BITS, "ro", f"{opcode.name}s finished")
        for opcode, engine in ENGINES.items()
    ),
    _one("MOE_BLOCKS", 0x190, 5, "ro", f"MoE blocks whose EXPERT_LOAD is known: those begun, at most {MAX_BLOCKS}"),
    _one("EXPERT_COUNT", 0x200, 16, "ro", "tokens in each expert's queue", count=MAX_EXPERTS),
    _one("EXPERT_LOAD", 0x280, TOKEN_BITS, "ro", "tokens of each expert in block MOE_BLOCK", count=MAX_EXPERTS),
)

_BY_NAME = {register.name: register for register in REGISTERS}


def find(name: str) -> Register:
    """The register called ``name``.

    Raises:
        KeyError: there is none; the message lists all
    """
    if name not in _BY_NAME:
        raise KeyError(f"register must be one of {', '.join(_BY_NAME)}, not {name!r}")
    return _BY_NAME[name]


def host_map() -> dict[str, dict[str, object]]:
    """The map as plain data: ``{name: {offset, words, count, fields: {name: {lsb, width, access}}}}``."""
    return {
        register.name: {
            "offset": register.offset,
            "words": register.words,
            "count": register.count,
            "fields": {
                field.name: {"lsb": field.lsb, "width": field.width, "access": field.access}
                for field in register.fields
            },
        }
        for register in REGISTERS
    }


def markdown() -> str:
    """The map as a Markdown page (``docs/registers.md``)."""
    lines = [
        "# Registers",
        "",
        "Generated from `hw/edgemoe_hw/spec/regs.py`; do not edit.",
        "",
        "AXI4-Lite, 32 bits. A register wider than that has its low half at the offset and its high half 4 bytes",
        "above; reading the low half of a read-only one latches the high half. Addresses that do not exist read",
        "as 0 and ignore writes.",
        "",
        "| offset | register | bits | field | access | description |",
        "|---|---|---|---|---|---|",
    ]
    for register in REGISTERS:
        name = register.name + (f"[{register.count}]" if register.count > 1 else "")
        lines += [
            f"| {register.offset:#05x} | {name} | {field.lsb + field.width - 1}:{field.lsb} | "
            f"{'' if field.name == 'value' else field.name} | {field.access} | "
            f"{field.description or register.description} |"
            for field in register.fields
        ]
    lines += [
        "",
        "`ro` read only; `rw` stored; `strobe` writing 1 acts once; `w1c` writing 1 clears.",
        "",
        "## Error codes",
        "",
        "| code | name | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| {code.value} | {code.name} | {ERROR_TEXT[code]} |" for code in ErrorCode]
    return "\n".join(lines) + "\n"


def _check() -> None:
    taken: set[int] = set()
    for register in REGISTERS:
        addresses = {register.offset + 4 * i for i in range(register.count * register.words)}
        assert not addresses & taken and max(addresses) < 1 << ADDRESS_BITS and register.offset % 4 == 0
        assert register.words == 1 or (register.count == 1 and len(register.fields) == 1)
        taken |= addresses


_check()
