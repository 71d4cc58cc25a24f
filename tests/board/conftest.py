"""Vivado's stub, run by whatever Tcl there is, and what it recorded as a block design."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgemoe.boards.bitstream import BUILD_TCL
from edgemoe.boards.board import Board
from edgemoe.boards.build_inputs import parameters_tcl

STUB = Path(__file__).with_name("vivado_stub.tcl")
# Python's own Tcl, where there is no tclsh; it lacks the command exit.
_TKINTER = (
    "import os, sys, tkinter; t = tkinter.Tcl(); t.setvar('argv', t.call('list', *sys.argv[2:])); "
    "t.createcommand('exit', lambda code: os._exit(int(code))); t.call('source', sys.argv[1])"
)


def tcl_command() -> list[str]:
    """Command that runs a Tcl script; a test without one fails, it is not skipped."""
    if path := shutil.which("tclsh"):
        return [path]
    check = subprocess.run([sys.executable, "-c", "import tkinter; tkinter.Tcl()"], capture_output=True)
    assert check.returncode == 0, "neither tclsh nor tkinter: sudo apt-get install tcl"
    return [sys.executable, "-c", _TKINTER]


def pairs(words: str) -> dict[str, str]:
    """A Tcl list of names and values, none of which has spaces."""
    items = [item.strip("{}") for item in words.split()]
    return dict(zip(items[::2], items[1::2], strict=True))


@dataclass
class Run:
    """One run of build.tcl: exit code, output, calls, and the block design that they make."""

    code: int
    output: str
    calls: list[list[str]]
    work: Path
    cells: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self):
        for call in self.of("create_bd_cell"):
            self.cells[call[-1]] = call[4]
            self.settings[call[-1]] = {}
        for call in self.of("set_property"):
            if call[1] == "-dict":
                self.settings[call[3]] |= pairs(call[2].replace("CONFIG.", ""))

    def of(self, name: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == name]

    @property
    def buses(self) -> set[tuple[str, str]]:
        """Interfaces that are connected: (master, slave)."""
        return {(call[1], call[2]) for call in self.of("connect_bd_intf_net")}

    @property
    def nets(self) -> dict[str, set[str]]:
        """Pins by the pin that drives them."""
        found: dict[str, set[str]] = {}
        for call in self.of("connect_bd_net"):
            found.setdefault(call[1], set()).update(call[2:])
        return found

    def addresses(self, space: str) -> dict[str, tuple[int, int]]:
        """Base and size of each segment in an address space."""
        found = {}
        for call in self.of("assign_bd_address"):
            options = dict(zip(call[1:7:2], call[2:7:2], strict=True))
            if options["-target_address_space"] == space:
                found[call[7]] = (int(options["-offset"], 16), int(options["-range"], 16))
        return found


@pytest.fixture
def build(tmp_path):
    """Runs build.tcl for a board; keyword arguments are the stub's settings."""

    def run(
        board: Board, interfaces: list[str] | None = None, work: Path = tmp_path / "work", **settings: object
    ) -> Run:
        work.mkdir(exist_ok=True)
        parameters, record = work / "parameters.tcl", tmp_path / "record"
        parameters.write_text(parameters_tcl(board, work / "edgemoe.v", work))
        if interfaces is None:
            interfaces = ["s_axi", *(f"m{index}_axi" for index in range(board.config.axi_masters))]
        environment = {
            "STUB_INTERFACES": " ".join(interfaces),
            "STUB_WIDTH": 8 * board.config.axi_bytes,
            "STUB_PLL": board.pll_mhz,
        } | {f"STUB_{name.upper()}": value for name, value in settings.items()}
        result = subprocess.run(
            [*tcl_command(), str(STUB), str(record), str(BUILD_TCL), str(parameters)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=work,
            env=os.environ | {name: str(value) for name, value in environment.items()},
        )
        calls = [call.split("\x1f") for call in record.read_text().split("\x1e")[:-1]]
        return Run(result.returncode, result.stdout, calls, work)

    return run


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts programs of one's own first on PATH: ``program(name, shell lines)``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def write(name: str, lines: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def vivado(program, tmp_path, monkeypatch):
    """A ``vivado`` on PATH that is the stub; environment STUB_* as there. As Vivado does, it writes the script's text
    into its output, unless it is told not to."""
    monkeypatch.setenv("STUB_INTERFACES", "s_axi m0_axi m1_axi")
    monkeypatch.setenv("STUB_PLL", "1000")
    command = " ".join(f"'{word}'" for word in [*tcl_command(), str(STUB), str(tmp_path / "record")])
    return program(
        "vivado",
        f"""echo "$@" > "{tmp_path}/arguments"
trace=yes
while [ $# -gt 0 ]; do
    case "$1" in -notrace) trace=no;; -source) script="$2";; -tclargs) parameters="$2";; esac
    shift
done
[ $trace = no ] || sed 's/^/# /' "$script"
exec {command} "$script" "$parameters"
""",
    )
