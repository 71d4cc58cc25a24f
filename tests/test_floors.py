"""The floors of the packages: import-linter's contracts hold and would notice, and the graph's own tool is right."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import ROOTS, circles, floors, import_graph, rooms_of, upward

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
_LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder / top) for top in ROOTS.values())}
    return subprocess.run([sys.executable, "-c", _LINT], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    """The packages' sources and their contracts."""
    for package, top in ROOTS.items():
        shutil.copytree(
            ROOT / top / package, tmp_path / top / package, ignore=lambda folder, names: _unneeded(folder, names)
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _unneeded(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()]


def test_contracts_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_no_exceptions():
    """Contracts without a list of imports that they let pass, and every room has its floor."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert [contract for contract in contracts if "ignore_imports" in contract] == []
    inside = [contract for contract in contracts if "containers" in contract]
    assert {name for contract in inside for name in contract["containers"]} == set(ROOTS)
    assert all(contract["exhaustive"] for contract in inside)


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("hw/edgemoe_hw/spec/config.py", "import amaranth", "The contract is plain Python"),
        (
            "hw/edgemoe_hw/primitives/delay.py",
            "from edgemoe_hw.engines import load",
            "edgemoe_hw.primitives is not allowed",
        ),
        (
            "models/edgemoe_models/config.py",
            "import edgemoe_hw.spec",
            "edgemoe_models is not allowed to import edgemoe_hw",
        ),
        ("sw/edgemoe/layout.py", "def f():\n    import edgemoe.runtime", "edgemoe.layout is not allowed"),
        ("sw/edgemoe/compiler/errors.py", "import edgemoe", "The front door is for users"),
        ("sw/edgemoe/runtime/channel.py", "import edgemoe.runtime.stream", "No circles within a package BROKEN"),
        ("sw/edgemoe/new_room.py", "", "edgemoe.new_room"),
    ],
)
def test_contracts_notice(copy, module, line, message):
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1 and message in " ".join(done.stdout.split()), done.stdout


def test_graph_of_this_checkout():
    graph = import_graph(ROOT)
    assert circles(graph) == []
    assert [arrow for root in ROOTS for arrow in upward(rooms_of(graph, root))] == []


def test_circles_and_floors():
    """``a`` and ``b`` in a circle, of which b's one import of a is the fewer; ``c`` below, ``d`` alone."""
    graph = {
        "edgemoe": {"edgemoe.a.x"},
        "edgemoe.a.x": {"edgemoe.b", "edgemoe.c"},
        "edgemoe.a.y": {"edgemoe.a.x"},
        "edgemoe.b": {"edgemoe.a.x", "edgemoe.c"},
        "edgemoe.c": set(),
        "edgemoe.d": {"edgemoe_hw.spec"},
        "edgemoe_hw.spec": set(),
    }
    assert circles(graph) == [["edgemoe.a.x", "edgemoe.b"]]
    rooms = rooms_of(graph, "edgemoe")
    assert rooms == {"a": {"b", "c"}, "b": {"a", "c"}, "c": set(), "d": set()}
    assert upward(rooms) in ([("a", "b")], [("b", "a")])
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": set()}) == {"a": 2, "b": 1, "c": 0, "d": 0}
    assert upward({"a": {"b"}, "b": {"c"}, "c": set()}) == []
