"""The accelerator's Verilog in a form that Verilator makes fast C++ of: the same registers, the same values each cycle.

Two forms that Yosys writes are slow once they are C++, because Verilator keeps them as it finds them:

- A memory with a write enable a byte is an ``if`` a byte. Each has a flag, an address and a value of its own, all set
  and tested in every cycle: 4,096 of each for the weights of a 64 x 64 array. Here it is one write of the whole row,
  which keeps the bytes that are not enabled, and only where any is.
- int4 weights that become int8 are concatenations of single bits, a third of the generated text on ``pynq-z2``. Here
  they are masks and a product (8 x 30 is 0xf0) of 64 bits at a time.

Nothing is left out and no timing changes; what does not look exactly as expected stays as it is. Both are compared with
the original cycle by cycle (``tests/sim/test_fast_verilog.py``). ``EDGEMOE_RTL=verbatim`` simulates the original.
Synthesis never sees this.
"""

from __future__ import annotations

import os
import re

from edgemoe_sim.verilator import BuildError

__all__ = ["fast_verilog", "is_verbatim", "rewrite"]

_NAME = r"(?:\\\S+ |[A-Za-z_]\w*)"
_BYTE_WRITES = re.compile(
    r"^  always @\(posedge clk\) begin\n"
    rf"(?P<writes>(?:    if \({_NAME} ?\[\d+\]\)\n      {_NAME} ?\[{_NAME}\]\[\d+:\d+\] <= .+;\n){{2,}})"
    r"  end\n",
    re.M,
)
_BYTE_WRITE = re.compile(
    rf"    if \((?P<enable>{_NAME}) ?\[(?P<bit>\d+)\]\)\n"
    rf"      (?P<memory>{_NAME}) ?\[(?P<row>{_NAME})\]\[(?P<high>\d+):(?P<low>\d+)\] <= (?P<data>.+);\n"
)
_EXTENDED = re.compile(r"\{ data\[(?P<top>\d+)\], .*?\}(?=;)")
_CHUNK = 64


def is_verbatim() -> bool:
    """Whether ``$EDGEMOE_RTL`` asks for the Verilog as it is synthesized.

    Raises:
        BuildError: it is neither empty nor ``verbatim``
    """
    chosen = os.environ.get("EDGEMOE_RTL", "")
    if chosen not in ("", "verbatim"):
        raise BuildError(f"EDGEMOE_RTL must be verbatim or empty, not {chosen!r}")
    return bool(chosen)


def fast_verilog(verilog: str) -> str:
    """What is simulated: ``rewrite``'s, or ``verilog`` itself where ``is_verbatim``."""
    return verilog if is_verbatim() else rewrite(verilog)


def rewrite(verilog: str) -> str:
    """The same design in the faster form."""
    modules = re.split(r"(?m)(?<=^endmodule\n)", verilog)
    return "".join(_EXTENDED.sub(_nibbles, _row_writes(module)) for module in modules)


def _row_writes(module: str) -> str:
    return _BYTE_WRITES.sub(lambda match: _row_write(match, module), module)


def _row_write(match: re.Match[str], module: str) -> str:
    """One write of a row instead of one a byte; unchanged unless they are one port's and together the whole row."""
    writes = list(_BYTE_WRITE.finditer(match["writes"]))
    first = writes[0]
    memory, row, enable = first["memory"], first["row"], first["enable"]
    same = all((w["memory"], w["row"], w["enable"]) == (memory, row, enable) for w in writes)
    bits = [int(w["bit"]) for w in writes] == list(range(len(writes)))
    width = int(writes[-1]["high"]) + 1
    edges = [0, *(int(w["high"]) + 1 for w in writes)]
    whole = [int(w["low"]) for w in writes] == edges[:-1] and f"  reg [{width - 1}:0] {memory.strip()} " in module
    # Enables beyond the last byte would make a write of a row where there is none: harmless, but not expected.
    exact = re.search(
        rf"^  (?:wire|reg|input|output) \[{len(writes) - 1}:0\] {re.escape(enable.strip())} ?;", module, re.M
    )
    others = len(re.findall(rf"^ +{re.escape(memory.strip())} ?\[.*<= ", module, re.M)) != len(writes)
    if not (same and bits and whole and exact) or others:
        return match[0]
    parts = (f"{enable}[{w['bit']}] ? {w['data']} : {memory}[{row}][{w['high']}:{w['low']}]" for w in reversed(writes))
    return f"  always @(posedge clk)\n    if (|{enable})\n      {memory}[{row}] <= {{ {', '.join(parts)} }};\n"


def _nibbles(match: re.Match[str]) -> str:
    """Every byte's low or high four bits with their sign extended, unchanged unless it is exactly that."""
    top = int(match["top"])
    for first in (0, 4):
        count = (top - first + 5) // 8
        if count > 0 and match[0] == _concatenation(count, first):
            chunks = range(0, 8 * count, _CHUNK)
            return f"{{ {', '.join(_extended(low, min(_CHUNK, 8 * count - low), first) for low in reversed(chunks))} }}"
    return match[0]


def _concatenation(count: int, first: int) -> str:
    """What Yosys writes for it."""
    tops = (8 * byte + first + 3 for byte in reversed(range(count)))
    return "{ " + ", ".join(", ".join([f"data[{top}]"] * 4 + [f"data[{top}:{top - 3}]"]) for top in tops) + " }"


def _extended(low: int, width: int, first: int) -> str:
    """The same of ``width`` bits from ``low``, without a carry from byte to byte."""
    data = f"data[{low + width - 1}:{low}]"
    nibble, sign = (f"{width}'h{pattern * (width // 8)}" for pattern in ("0f", "08"))
    source = f"{data} >> {first}" if first else data
    return f"{width}'({source} & {nibble} | ({source} & {sign}) * {width}'d30)"
