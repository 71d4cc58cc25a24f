"""Command lines in the documentation: verbs, options and make targets that there are."""

import re
import shlex
from pathlib import Path

import pytest

from edgemoe.cli.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^( *)```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:edgemoe|make|python -m|python3 -m) [^`]+)`")


def commands(page: Path) -> list[list[str]]:
    """Words of each command line of edgemoe, make or a module, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    found = [" ".join(line.split()) for line in _INLINE.findall(_BLOCK.sub("", text))]
    for _, block in _BLOCK.findall(text):
        found += re.sub(r"\\\n", " ", block).splitlines()
    lines = [line.strip().removeprefix("$ ").partition("  #")[0].partition(" # ")[0] for line in found]
    lines = [re.split(r" \| | > | && |…", re.sub(r"^(\w+=\S+ )+", "", line))[0] for line in lines]
    wanted = re.compile(r"(?:edgemoe|make|torchrun|python3? -m edgemoe\S*) ")
    return [shlex.split(line.replace("...", "")) for line in lines if wanted.match(line)]


PARAMETERS = [(page, words) for page in PAGES for words in commands(page)]


@pytest.fixture(scope="module")
def options():
    """Text of each verb's help, and of its sub-verbs'."""
    import importlib

    import typer

    from edgemoe.cli.application import new_application

    texts = {}
    for name, verb in VERBS.items():
        command = importlib.import_module(f"edgemoe.cli.{verb.module}").command
        if not isinstance(command, typer.Typer):
            application = new_application()
            application.command()(command)
            command = application
        parser = typer.main.get_command(command)
        texts[name] = {option for p in parser.params for option in (*p.opts, *p.secondary_opts)}
        for sub, child in getattr(parser, "commands", {}).items():
            texts[f"{name} {sub}"] = {option for p in child.params for option in (*p.opts, *p.secondary_opts)}
    return texts


@pytest.mark.parametrize(
    ("page", "words"), PARAMETERS, ids=lambda value: value.name if isinstance(value, Path) else " ".join(value)[:60]
)
def test_documented_command_exists(options, page, words):
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        assert {word for word in words[1:] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")} <= targets
        return
    if words[0] == "torchrun":
        assert words[words.index("-m") + 1] == "edgemoe.cli"
        words = ["edgemoe", *words[words.index("-m") + 2 :]]
    if words[0].startswith("python"):
        generators = ("edgemoe_hw.spec.isa_docs", "edgemoe_hw.spec.regs_docs", "edgemoe_hw.spec.c_headers")
        assert words[2] in ("edgemoe.runtime.selftest", *generators), words
        return
    if words[1] in ("VERB", "--help", "--version"):
        return
    assert words[1] in VERBS, words
    verb = " ".join(words[1:3]) if " ".join(words[1:3]) in options else words[1]
    given = {word.partition("=")[0] for word in words[2:] if re.fullmatch(r"--[a-z-]+(=.*)?", word)} - {"--help"}
    assert given <= options[verb], (verb, given - options[verb])


def test_old_entry_points_are_gone():
    """Everything is a verb; only the contract's generators and what boards start are modules."""
    assert len(PARAMETERS) > 60
    modules = r"(?!cli|runtime\.(selftest|doctor))"
    gone = re.compile(rf"edgemoe-train|python3? -m edgemoe_models|python3? -m edgemoe\.{modules}")
    for path in [
        *PAGES,
        *(ROOT / "sw").rglob("*.py"),
        *(ROOT / "models").rglob("*.py"),
        *(ROOT / "tools").rglob("*.py"),
    ]:
        assert not gone.search(path.read_text(encoding="utf-8")), path
