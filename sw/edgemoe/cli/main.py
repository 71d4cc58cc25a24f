"""The command line: ``edgemoe VERB ...``. It imports the verb that is used and turns what ends it into an exit code.

A refusal is one line on stderr that begins with ``edgemoe: ``, never a traceback; only results go to stdout. The codes:

    0    done
    1    refused, failed, or what was compared or checked is not as it must be
    2    the command line is wrong
    70   a fault of edgemoe itself: EDGEMOE_DEBUG=1 shows where
    130  interrupted (Ctrl-C)
    141  whoever read the output left
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.application import new_application
from edgemoe.cli.output import complain, note, say, use_any_encoding
from edgemoe.cli.verbs import VERBS
from edgemoe.errors import DeviceError, MissingExtraError, SynthesisError
from edgemoe.extras import extra_of, needs
from edgemoe.version import __version__

__all__ = ["EXIT_CODES", "main", "note_warning", "overview", "run"]

REFUSED, USAGE, INTERNAL, INTERRUPTED, BROKEN_PIPE = 1, 2, 70, 130, 141
EXIT_CODES = (0, REFUSED, USAGE, INTERNAL, INTERRUPTED, BROKEN_PIPE)
_WIDTH = 80
_HELP = "Deploy multi-task Mixture-of-Experts Vision Transformers on an open FPGA accelerator."
_REFUSALS = (ValueError, OSError, DeviceError, MissingExtraError, SynthesisError)
#: Base of all errors in a command line; typer exports some of its subclasses only.
_USAGE_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Entry point."""
    use_any_encoding()
    warnings.showwarning = note_warning
    sys.exit(run(sys.argv[1:]))


def note_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning as one line, without the source that it comes from."""
    note(str(message))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _let_go_of_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("EDGEMOE_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        code, message = _explain(error, arguments)
        complain(message)
        return code


def _dispatch(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in VERBS:
        module = importlib.import_module(f"edgemoe.cli.{VERBS[arguments[0]].module}")
        return _invoke(_application(module.command), f"edgemoe {arguments[0]}", arguments[1:])
    if not arguments or "--help" in arguments:
        say(*overview().splitlines())
        return 0
    return _invoke(_without_verb(), "edgemoe", arguments)


def overview() -> str:
    """What ``edgemoe --help`` prints: the verbs by what a person wants to do."""
    width = max(map(len, VERBS))
    lines = ["Usage: edgemoe VERB ...", "", *textwrap.wrap(_HELP, _WIDTH)]
    for group, names in itertools.groupby(VERBS, lambda name: VERBS[name].group):
        lines += ["", f"{group}:", *(f"  {name:{width}}  {VERBS[name].summary}" for name in names)]
    return "\n".join([*lines, "", "edgemoe VERB --help explains a verb; edgemoe --version tells the version."])


def _application(command: Any) -> typer.Typer:
    if isinstance(command, typer.Typer):
        return command
    application = new_application()
    application.command()(command)
    return application


def _invoke(application: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Parse and run, without typer's own ways of reporting errors."""
    command = typer.main.get_command(application)
    try:
        with command.make_context(name, list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except _USAGE_ERROR as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # a group of verbs without one: its message is the help
            raise
        say(*str(error).splitlines())
    return 0


def _without_verb() -> typer.Typer:
    """For a command line that does not begin with a verb: --version, or what is wrong with it."""
    application = new_application()

    @application.callback()
    def options(
        version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_show_version)] = False,
    ) -> None:
        pass

    for name in VERBS:
        application.command(name)(lambda: None)
    return application


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"edgemoe {__version__}")
        raise typer.Exit


def _explain(error: Exception, arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and message of an error that ended a verb."""
    verb = " ".join(["edgemoe", *(name for name in arguments[:1] if name in VERBS)])
    if isinstance(error, _USAGE_ERROR):
        text = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        return USAGE, f"{text} ({verb} --help)"
    if isinstance(error, ImportError) and (extra := extra_of(error)) is not None:
        return REFUSED, needs(verb, extra)
    if isinstance(error, MemoryError):
        return REFUSED, f"{verb} needs more memory than there is"
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes, os.PathLike)) and error.strerror:
        return REFUSED, f"{os.fsdecode(error.filename)}: {error.strerror}"  # without the error's number
    if isinstance(error, _REFUSALS):
        return REFUSED, str(error) or type(error).__name__
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return INTERNAL, (
        f"{verb} failed through a fault of its own: {type(error).__name__}: {error} "
        f"({Path(frame.filename).name}, line {frame.lineno}; EDGEMOE_DEBUG=1 shows the traceback)"
    )


def _let_go_of_stdout() -> None:
    """Nobody reads it; what is still buffered goes nowhere, so that the interpreter does not complain at its end."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
