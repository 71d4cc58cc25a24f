"""The API reference has every public name, and every public name says what its parts are."""

import dataclasses
import importlib
import inspect
import re
import typing
from pathlib import Path

import pytest

import edgemoe
from support.doc_blocks import run_blocks

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
NAMES = re.findall(r"^::: (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def find(name: str):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def own_doc(thing) -> str:
    return inspect.getdoc(thing) or ""


def section(text: str, title: str) -> dict[str, str]:
    """Entries of a section of a Google docstring, by name."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text + "\n", re.MULTILINE)
    return dict(re.findall(r"^    (\w+): (.*)$", found[1], re.MULTILINE)) if found else {}


def parts(thing) -> list[str]:
    """What a class's docstring has to list: its own fields, those of bases not included."""
    if dataclasses.is_dataclass(thing):
        inherited = {
            field.name
            for base in thing.__mro__[1:]
            if dataclasses.is_dataclass(base)
            for field in dataclasses.fields(base)
        }
        return [field.name for field in dataclasses.fields(thing) if field.name not in inherited]
    if typing.is_typeddict(thing):
        bases = (edgemoe.ReferenceOptions, edgemoe.DriverOptions)
        inherited = {name for base in bases if base is not thing for name in base.__annotations__}
        own = [name for name in thing.__annotations__ if name not in inherited]
        return own or list(thing.__annotations__)
    return []


def test_every_public_name_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert len(NAMES) == len(set(NAMES))
    for name in edgemoe.__all__:
        assert f"edgemoe.{name}" in NAMES or f"`edgemoe.{name}`" in text or name == "__version__", name


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_is_complete(name):
    thing = find(name)
    text = own_doc(thing)
    assert text, f"{name} has no docstring"
    assert not re.search(r":[a-z]+:`", inspect.getsource(thing)), f"{name}: Sphinx's roles are not understood"
    if not inspect.isclass(thing):
        check_function(name, thing)
        return
    documented = section(text, "Attributes")
    missing = [part for part in parts(thing) if part not in documented]
    assert not missing, f"{name}: its Attributes lack {', '.join(missing)}"
    for member, value in vars(thing).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property) or hasattr(value, "attrname"):  # cached_property
            inherited = any(own_doc(getattr(base, member, None)) for base in thing.__mro__[1:])
            documented_here = own_doc(value) or own_doc(getattr(value, "func", None)) or member in documented
            assert documented_here or inherited, f"{name}.{member} has no docstring"
        elif inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod)):
            assert own_doc(value), f"{name}.{member} has no docstring"


def check_function(name: str, function) -> None:
    """Every parameter is in Args, and what it returns is said."""
    documented = section(own_doc(function), "Args")
    parameters = inspect.signature(function).parameters
    short = len(own_doc(function).splitlines()) <= 8 and len(parameters) <= 2  # its first line says it all
    missing = [parameter for parameter in parameters if parameter not in documented]
    assert short or not missing, f"{name}: its Args lack {', '.join(missing)}"


def test_the_example_runs(capsys):
    run_blocks("reference/api.md")
    assert capsys.readouterr().out.split()[0] == edgemoe.__version__
