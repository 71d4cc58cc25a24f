"""The accelerator as Yosys mapped it to a 7 series FPGA, for the simulator: its cells with models of them."""

from __future__ import annotations

import re

from edgemoe_sim.block_ram import block_ram

__all__ = ["simulated_netlist"]

_DECLARED = ("RAMB18E1", "RAMB36E1")  # in Yosys' library, without what they do
_CELL = re.compile(r"^  (?:\(\*.*\*\)\n  )?([A-Z][A-Z0-9_]+)(?: #\(|\s+\S+ \()", re.MULTILINE)


def simulated_netlist(netlist: str, cells: str) -> str:
    """Verilog of a netlist that simulates by itself.

    Args:
        netlist: of Yosys' ``write_verilog``, flattened
        cells: Yosys' library of simulation models (``xilinx/cells_sim.v``)

    Raises:
        ValueError: the netlist has a cell without a model; the message names it
    """
    modules = dict(re.findall(r"^module (\w+)\s*(?:#|\()(.*?)^endmodule$", cells, re.MULTILINE | re.DOTALL))
    if unknown := set(_CELL.findall(netlist)) - modules.keys() - {*_DECLARED}:
        raise ValueError(f"the netlist has cells without a model: {', '.join(sorted(unknown))}")
    library = re.sub(rf"^module (?:{'|'.join(_DECLARED)}) \(.*?^endmodule$", "", cells, flags=re.MULTILINE | re.DOTALL)
    return netlist + "\n" + library + "".join(block_ram(name) for name in _DECLARED)
