"""Tests use the packages as others do: no private attribute of theirs, neither read nor replaced."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What is private to Python or to a library of others, and has no other way.
ALLOWED = {
    "os._exit",
    "handle._name",  # cocotb's handles have no other name
    "ram.read_if._read",  # cocotbext-axi: to make its answers wait
    "ram.write_if._write",
    "core._multiarray_umath",  # NumPy: what its own CPU dispatch is called
    "_core",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every use of a private name of something else.

    That is ``thing._name`` (but of ``self`` and ``cls``), ``from package import _name``, and a text that names one for
    ``monkeypatch.setattr``, ``getattr`` and the like.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls") and f"{owner}.{node.attr}" not in ALLOWED:
                yield node.lineno, f"{owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module not in ALLOWED:
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names if is_private(name.name))
        elif isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("setattr", "delattr", "getattr", "hasattr"):
                texts = [a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                names = (text for text in texts if text not in ALLOWED)
                yield from ((node.lineno, text) for text in names if is_private(text.rpartition(".")[2]))


def offenders() -> Counter[str]:
    """How many uses each file has."""
    found: Counter[str] = Counter()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        uses = list(private_uses(path.read_text(encoding="utf-8")))
        if uses:
            found[path.relative_to(ROOT).as_posix()] = len(uses)
    return found


def test_tests_use_no_private_names():
    assert offenders() == {}


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("driver._weights[0]", ["driver._weights"]),
        ("self._x + cls._y + a.__class__ + os._exit", []),
        ("edgemoe.open(b)._executor.run()", ["edgemoe.open(b)._executor"]),
        ("monkeypatch.setattr('edgemoe.boards.fit._run', f)", ["edgemoe.boards.fit._run"]),
        ("monkeypatch.setattr(program, '_MAX', 1)", ["_MAX"]),
        ("getattr(x, '_y', None)", ["_y"]),
        ("from edgemoe.compiler.program import _LIMIT, build", ["edgemoe.compiler.program._LIMIT"]),
        ("def _helper(): pass\n_helper()", []),
    ],
)
def test_the_rule(source, uses):
    assert [text for _, text in private_uses(source)] == uses
