"""What the documentation calls by name exists: files, modules, verbs and options, targets of make."""

import functools
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from edgemoe.cli.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
WRITTEN = [page for page in PAGES if page.parent.name != "model_cards"]
ROOMS = ("boards", "docs", "hw", "models", "sim", "sw", "tests", "tools")
WIDTH = 120

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^(?:    \S.*\n)+", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_SOURCE = re.compile(r"[\w.\-/*]+\.(?:cpp|ipynb|md|py|svg|tcl|toml|yml)")
_ROOM = re.compile(rf"(?:{'|'.join(ROOMS)}|edgemoe(?:_hw|_models|_sim))/")
_DOTTED = re.compile(r"\bedgemoe(?:_hw|_models|_sim)?(?:\.[A-Za-z_]\w*)+\b(?![:/-])")
# Not of Python: a key in a file's metadata, the vendor in a part's name, files that a page makes.
_NO_MODULES = {"edgemoe.h", "edgemoe.scales", "edgemoe.org", "edgemoe.v"}
# Files that a page tells the reader to write, or that lie on a board.
_READERS_OWN = {"run.toml", "board.toml"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str) -> list[str]:
    """Code blocks of a page that are for a shell: those without a language, and indented ones."""
    fenced = [content for _, language, content in _BLOCK.findall(text) if language in ("", "sh", "bash")]
    return fenced + _INDENTED.findall(_BLOCK.sub("", text))


def spans(page: Path) -> list[str]:
    """What stands in backticks in a page's prose."""
    return _SPAN.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))


@functools.cache
def checked_in() -> tuple[str, ...]:
    """Files and folders of the checkout, each with a slash in front, folders also with one behind."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for room in ROOMS:
        found += [path for path in (ROOT / room).rglob("*") if "__pycache__" not in path.parts]
    return tuple(f"/{path.relative_to(ROOT)}" + "/" * path.is_dir() for path in found)


def exists(name: str) -> bool:
    """Whether a file or folder of this name, or the end of a path, is in the checkout."""
    if name.rstrip("/") in ROOMS:
        return (ROOT / name).is_dir()
    if "*" in name:
        return any(ROOT.glob(name))
    return any(path.rstrip("/").endswith("/" + name.rstrip("/")) for path in checked_in())


@every_page
def test_files_exist(page):
    for span in spans(page):
        for word in span.split():
            word = word.strip(",;()")
            in_a_room = _ROOM.match(word) and re.fullmatch(r"[\w.\-/*]+", word)
            if (_SOURCE.fullmatch(word) or in_a_room) and word not in _READERS_OWN and not word.startswith("build/"):
                assert exists(word), f"{page.name}: `{span}` names {word}, which does not exist"


def resolve(name: str) -> Any:
    """The module or the object that a dotted name stands for; AttributeError or ImportError where there is none."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            found = importlib.import_module(".".join(parts[:number]))
        else:
            found = getattr(found, part)
    return found


@every_page
def test_modules_exist(page):
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*spans(page), *(content for _, _, content in _BLOCK.findall(text)), *blocks(text)])
    for name in sorted(set(_DOTTED.findall(code)) - _NO_MODULES):
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            if isinstance(error, ImportError) and error.name and not error.name.startswith("edgemoe"):
                continue  # the module is there; what it needs is not installed (pynq on Python 3.13)
            pytest.fail(f"{page.name} names {name}, which does not exist")


def commands(page: Path, program: str) -> list[list[str]]:
    """Arguments of each use of a program, in a page's blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    lines = "\n".join(blocks(text)).replace("\\\n", " ").splitlines()
    lines = [line.strip().removeprefix("$ ") for line in [*lines, *spans(page)]]
    found = []
    for line in lines:
        if line.startswith(f"{program} "):
            words = shlex.split(re.sub(r"[\[\]]", "", line), comments=True)
            end = next((i for i, word in enumerate(words) if word[0] in "|>&;"), len(words))
            found.append(words[1:end])
    return found


@functools.cache
def click_command(verb: str) -> Any:
    application = importlib.import_module(f"edgemoe.cli.{VERBS[verb].module}").command
    if not isinstance(application, typer.Typer):
        function, application = application, typer.Typer()
        application.command()(function)
    return typer.main.get_command(application)


def check_command(words: list[str]) -> None:
    """Parse a command line without running it; an unknown verb, option or argument is an exception."""
    if words[0] in ("--help", "--version", "VERB"):
        return
    assert words[0] in VERBS, f"there is no verb {words[0]}"
    command, rest = click_command(words[0]), words[1:]
    if rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.context_class(command, info_name=words[0])
    _, left, _ = command.make_parser(context).parse_args(rest)
    left = [word for word in left if word not in ("...", "…")]
    assert not left, f"unexpected {left}"


@every_page
def test_commands_are_accepted(page):
    for words in commands(page, "edgemoe"):
        try:
            check_command(words)
        except Exception as error:
            pytest.fail(f"{page.name}: edgemoe {shlex.join(words)}: {error}")


@every_page
def test_make_has_the_targets(page):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    for words in commands(page, "make"):
        assert {word for word in words if "=" not in word and word.isascii()} <= targets, (
            f"{page.name}: make {' '.join(words)}"
        )


def test_stale_names_are_found():
    """The rules above, on names that do not exist."""
    assert exists("sw/edgemoe/cli/") and exists("top.py") and not exists("sw/edgemoe/devices/") and not exists("p.py")
    resolve("edgemoe_hw.spec.config.PRESETS")
    for name in ("edgemoe.devices", "edgemoe_models.model.M3ViT"):
        with pytest.raises((ImportError, AttributeError)):
            resolve(name)
    check_command(["compile", "--model", "x", "--out", "y"])
    for words in (["quantise"], ["import", "x", "--to", "y"], ["info", "a", "b"], ["compile", "--out"]):
        with pytest.raises(Exception):  # noqa: B017 - of click, or an assertion
            check_command(words)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_not_wide(page):
    """Tables, pictures and code may be as wide as they are; model cards are written by a program."""
    text = re.sub(r"<!--.*?-->", "", _BLOCK.sub("", page.read_text(encoding="utf-8")), flags=re.DOTALL)
    wide = [line for line in text.splitlines() if len(line) > WIDTH and not re.match(r"\||!\[|    \S", line)]
    assert not wide, f"{page.name}: {len(wide)} lines are wider than {WIDTH} characters, the first: {wide[0]}"


def test_units_of_the_architecture_are_where_it_says():
    """docs/architecture.md, section 2: each class is in the file, or in one of the files, beside it."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## 2. ")[2].partition("## 3. ")[0]
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
    assert len(rows) > 10
    for names, files, *_ in rows:
        sources = "".join((ROOT / "hw/edgemoe_hw" / file).read_text(encoding="utf-8") for file in _SPAN.findall(files))
        for name in _SPAN.findall(names):
            assert f"\nclass {name}(" in sources, f"{name} is not in {files}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
