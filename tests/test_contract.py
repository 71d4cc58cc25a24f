"""The contract (edgemoe_hw.spec) is plain Python, all that compiler and runtime need, and alone lists the engines."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgemoe_hw.spec.isa import Engine

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / root for root in ("hw", "models", "sim", "sw", "tools", "boards")]

# The first lines of a script: no import of what `refused(top-level name)` says.
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if refused(name.partition(".")[0]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
ONLY_STDLIB = "import sys\nrefused = lambda name: name not in sys.stdlib_module_names | {'edgemoe_hw'}\n" + HIDE
NO_AMARANTH = "refused = lambda name: name.startswith('amaranth')\n" + HIDE


def run(script: str) -> str:
    """Output of a script in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in ("hw", "models", "sim", "sw")),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_contract_needs_the_standard_library_only():
    folder = ROOT / "hw" / "edgemoe_hw" / "spec"
    modules = sorted(f"edgemoe_hw.spec.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__")
    assert {"edgemoe_hw.spec.isa", "edgemoe_hw.spec.regs", "edgemoe_hw.spec.disassembler"} <= set(modules)
    lines = [*(f"import {module}" for module in modules), "print(sorted(sys.modules))"]
    loaded = run(ONLY_STDLIB + "\n".join(lines))
    assert "'edgemoe_hw.spec.isa'" in loaded and "'numpy'" not in loaded
    with pytest.raises(AssertionError, match="No module named 'numpy'"):  # the script does hide what it should
        run(ONLY_STDLIB + "import numpy")


def test_compiler_and_disassembler_need_no_amaranth():
    printed = run(
        NO_AMARANTH
        + """
from edgemoe.compiler import build_bundle
from edgemoe.workloads import load_graph
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.disassembler import disassemble

bundle = build_bundle(load_graph("m3vit-micro-w8a8"), PRESETS["pynq-z2"])
task = bundle.task("depth")
lines = list(disassemble(task.program, [phase.name for phase in task.phases]))
assert len(lines) == task.commands
print(lines[0], lines[-1], sep="\\n")
"""
    )
    assert re.fullmatch(
        r" +0 BEGIN +isa_version=\d+ config_hash=\d+ commands=(\d+)\n +\d+ END +\[load>=.*\]\n", printed
    )


def test_an_error_names_its_command_without_amaranth():
    printed = run(
        NO_AMARANTH
        + """
from pathlib import Path

import edgemoe
from edgemoe.bundle import Bundle
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.executor import ProgramStopped
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe_hw.spec import regs

class Failing(NullPlatform):
    def read(self, offset):
        failed = {"STATUS": 1 << 2, "ERROR_CODE": regs.ErrorCode.READ_BUS, "ERROR_COMMAND": 9}
        return next((value for name, value in failed.items() if regs.find(name).offset == offset), super().read(offset))

bundle = Bundle.load(next(Path(edgemoe.__file__).parent.glob("bundles/m3vit-micro-w8a8-*.emoe")))
driver = Driver(Failing(bundle.config), bundle)
try:
    driver.execute("depth", 0, 0)
except ProgramStopped as error:
    print(error)
"""
    )
    assert re.search(r"command 9: READ_BUS, .*\(task depth: 9 (LOAD|MATMUL|LAYERNORM) embed .*\)", printed), printed


NAMES = [engine.name.lower() for engine in Engine]


def engines_in(texts: list[str]) -> set[str]:
    """Engines that are named in a row: ``LOAD``, ``Engine.LOAD``, ``wait_load``, ``DONE_LOAD``, ..."""
    words = {text.rpartition(".")[2].lower().rpartition("_")[2] for text in texts}
    return {name for name in NAMES if name in words}


def rows_of_names(tree: ast.AST) -> list[tuple[int, set[str]]]:
    """Every tuple, list, set, dictionary and call that has elements, keys or arguments, and the engines they name."""
    found = []
    for node in ast.walk(tree):
        rows: list[list[ast.expr]] = []
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            rows = [node.elts]
        elif isinstance(node, ast.Dict):
            rows = [[key for key in node.keys if key is not None], node.values]
        elif isinstance(node, ast.Call):
            rows = [node.args]
        for parts in rows:
            # A tuple's first word tells what it is about: ("wait_load", 16).
            parts = [part.elts[0] if isinstance(part, ast.Tuple) and part.elts else part for part in parts]
            texts = [part.value if isinstance(part, ast.Constant) else ast.unparse(part) for part in parts]
            found.append((node.lineno, engines_in([text for text in texts if isinstance(text, str)])))
    return found


def test_only_the_contract_lists_the_engines():
    """``isa.Engine`` and ``isa.ENGINES``; whatever else is made for each engine is made from those."""
    listed = []
    for root in SOURCES:
        for path in sorted(root.rglob("*.py")):
            rows = rows_of_names(ast.parse(path.read_text(encoding="utf-8")))
            listed += [f"{path.relative_to(ROOT)}:{line}" for line, names in rows if len(names) == len(NAMES)]
        for path in sorted(path for suffix in ("c", "cpp", "h", "tcl") for path in root.rglob(f"*.{suffix}")):
            text = path.read_text(encoding="utf-8").lower()
            if text.startswith("/* generated from hw/edgemoe_hw/spec/"):  # tests/hw/test_c_headers.py
                continue
            if all(re.search(rf"(done|wait)_{name}\b|\"{name}\"", text) for name in NAMES):
                listed.append(str(path.relative_to(ROOT)))
    assert [place.partition(":")[0] for place in listed] == ["hw/edgemoe_hw/spec/isa.py"], listed


@pytest.mark.parametrize(
    "line",
    [
        'E = ("LOAD", "MATMUL", "NORM", "STORE")',
        "d = {Engine.LOAD: a, isa.Engine.MATMUL: b, Engine.NORM: c, Engine.STORE: d}",
        "w = (h.wait_load, h.wait_matmul, h.wait_norm, h.wait_store)",
        'r = [("DONE_LOAD", 1), ("DONE_STORE", 2), ("DONE_NORM", 3), ("DONE_MATMUL", 4)]',
        'f(_one("DONE_LOAD"), *x) or g("load", "norm", "store", "matmul")',
    ],
)
def test_a_list_of_the_engines_would_be_found(line):
    assert any(len(names) == len(NAMES) for _, names in rows_of_names(ast.parse(line)))
