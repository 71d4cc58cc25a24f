"""The repository's fixed shape: top level, size of files, what is loaded where. Floors: tests/test_floors.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE_ROOTS = {
    "edgemoe_hw": "hw",
    "edgemoe_models": "models",
    "edgemoe_sim": "sim",
    "edgemoe": "sw",
}
TOP_LEVEL = ["pyproject.toml", "hw", "sw", "sim", "models", "tests", "boards", "docs"]
MAX_LINES = 400

# Not for boards: what builds or simulates the accelerator, and the developer's commands that need
# that (measurements on the simulated device). Every other module of `edgemoe` is runtime, every verb of
# the command line and the reports too, and must be importable with nothing but the core dependencies;
# the PYNQ platform with pynq too (tests/sw/test_pynq.py).
NOT_RUNTIME = re.compile(r"edgemoe\.(studies|jobs\.scene_run|runtime\.verify|runtime\.platforms\.(sim|pynq))(\.|$)")
NOT_ON_BOARD = ["amaranth", "torch", "brevitas", "cocotb", "cocotbext", "edgemoe_sim"]


def python_files() -> list[Path]:
    """Tracked Python files, or all that there are when this is not a git checkout."""
    listing = subprocess.run(["git", "ls-files", "-z", "--", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode == 0:
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
        return [path for path in files if path.exists()]
    return [path for top in TOP_LEVEL[1:] for path in (ROOT / top).rglob("*.py")]


def package_files(package: str) -> list[Path]:
    return sorted((ROOT / PACKAGE_ROOTS[package] / package).rglob("*.py"))


def module_name(path: Path) -> str:
    package_root = ROOT / path.relative_to(ROOT).parts[0]
    return ".".join(path.relative_to(package_root).with_suffix("").parts).removesuffix(".__init__")


def loaded_after_import(modules: list[str]) -> set[str]:
    """Top-level packages in ``sys.modules`` of a fresh interpreter that imported ``modules``."""
    code = f"import sys, {', '.join(modules)}\nprint(*{{n.partition('.')[0] for n in sys.modules}})"
    paths = [str(ROOT / root) for root in PACKAGE_ROOTS.values()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_top_level(name):
    assert (ROOT / name).exists()


@pytest.mark.parametrize("package", PACKAGE_ROOTS)
def test_package_is_this_checkouts(package):
    module = __import__(package)
    assert Path(module.__file__) == ROOT / PACKAGE_ROOTS[package] / package / "__init__.py"


def test_files_are_short():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("package", ["edgemoe_hw", "edgemoe_models"])
def test_package_imports_no_tools(package):
    assert loaded_after_import([package]).isdisjoint(NOT_ON_BOARD)


def test_runtime_imports_no_tools():
    modules = [module_name(path) for path in package_files("edgemoe")]
    runtime = [m for m in modules if not NOT_RUNTIME.match(m) and not m.endswith("__main__")]
    assert "edgemoe" in runtime
    found = loaded_after_import(runtime) & set(NOT_ON_BOARD)
    if found:  # name the module that is to blame
        found = {
            f"{module} imports {name}"
            for module in runtime
            for name in loaded_after_import([module]) & set(NOT_ON_BOARD)
        }
    assert found == set()
