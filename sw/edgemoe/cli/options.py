"""Options that several verbs have, and options that are made of a dataclass's fields."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from edgemoe.bundle import Bundle
from edgemoe.configs import CONFIGS
from edgemoe.packaged_bundles import find_bundle
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import cache_root, results_root

if TYPE_CHECKING:
    from edgemoe.compiler import CompilerOptions

__all__ = [
    "Batch",
    "BundleOption",
    "BundlePath",
    "Config",
    "Dram",
    "ExpertPrefetch",
    "JointTasks",
    "Model",
    "RESULTS",
    "Rows",
    "SCENES",
    "Scenes",
    "compiler_options",
    "fields_as_options",
    "joint_tasks",
    "load_bundle",
    "write_json",
]

#: Where results go unless told, and generated scenes.
RESULTS, SCENES = results_root(), cache_root() / "scenes"

Config = Annotated[str, typer.Option(help=f"{', '.join(CONFIGS)}, a board, or a JSON file")]
Dram = Annotated[
    str,
    typer.Option(
        help="how the DRAM behaves: plain; axi3 (bursts of 16 beats, 8 at a time); refresh (pauses too); worst (and "
        "30 % random stalls)"
    ),
]
Model = Annotated[str, typer.Option(help="preset, its QAT form (<preset>-w8a8), float checkpoint or integer graph")]
ExpertPrefetch = Annotated[
    str,
    typer.Option(
        metavar="off|N|auto",
        help="experts fetched before the gate has chosen: none, the first N, or those that images mostly use",
    ),
]
JointTasks = Annotated[
    list[str] | None,
    typer.Option(
        "--joint",
        metavar="auto|none|A+B",
        help="tasks with a program together, as segmentation+depth; several allowed; default auto: all, where they fit",
        show_default=False,
    ),
]
Batch = Annotated[int, typer.Option(help="programs of 2 to so many images (at most 4) of each task too")]
_BUNDLE = "bundle (.emoe), or the name of a packaged one"
BundlePath = Annotated[Path, typer.Argument(help=_BUNDLE, show_default=False)]
BundleOption = Annotated[Path | None, typer.Option("--bundle", help=_BUNDLE, show_default=False)]
Rows = Annotated[Path | None, typer.Option("--json", help="also write the rows to this file")]
Scenes = Annotated[
    Path,
    typer.Option("--cache", help="folder that keeps generated scenes (default: in the cache)", show_default=False),
]


def fields_as_options(kind: Any, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb an option for each field of a dataclass but some, with the field's ``help`` of its metadata.

    The verb takes them as keywords (``**given``) and gets those that were given on the command line.
    """
    hints = get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.name not in without]
    names = {field.name for field in fields}

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def command(**values: Any) -> None:
            return verb(**{name: value for name, value in values.items() if name not in names or value is not None})

        signature = inspect.signature(verb, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        made = [_option(field, hints[field.name]) for field in fields]
        command.__signature__ = signature.replace(parameters=[*own, *made])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in (*own, *made)}
        del command.__wrapped__  # whose annotations would be read instead
        return command

    return decorate


def _option(field: Any, hint: Any) -> inspect.Parameter:
    text = field.metadata["help"]
    if field.default not in ("", False, None):
        text += f" (default: {field.default})"
    option = typer.Option(help=text, show_default=False)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[hint | None, option],
    )


def write_json(path: Path, values: Any) -> None:
    """Write figures for other programs."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def compiler_options(expert_prefetch: str) -> CompilerOptions:
    """What ``--expert-prefetch`` says.

    Raises:
        ValueError: it is neither off, auto nor a number
    """
    from edgemoe.compiler import CompilerOptions  # which most verbs do without

    given: Any = int(expert_prefetch) if expert_prefetch.isdecimal() else expert_prefetch
    return CompilerOptions(expert_prefetch=given)


def joint_tasks(given: Sequence[str] | None) -> Literal["auto", "none"] | list[list[str]]:
    """What ``--joint`` says.

    Raises:
        ValueError: it names tasks and a word
    """
    words = list(given or ["auto"])
    if words == ["auto"]:
        return "auto"
    if words == ["none"]:
        return "none"
    if lone := [word for word in words if "+" not in word]:
        raise ValueError(f"--joint must be auto, none or tasks with a + between them, not {lone[0]!r}")
    return [word.split("+") for word in words]


def load_bundle(path: Path) -> Bundle:
    """The bundle of a file or of a packaged name.

    Raises:
        BundleError: there is neither, or it cannot be used
    """
    return Bundle.load(find_bundle(path))
