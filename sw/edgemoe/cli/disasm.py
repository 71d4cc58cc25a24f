"""``edgemoe disasm``: a bundle's programs as text."""

from __future__ import annotations

from typing import Annotated

import typer

from edgemoe.cli.options import BundlePath, load_bundle
from edgemoe.cli.output import say
from edgemoe_hw.spec.disassembler import disassemble

__all__ = ["command"]


def command(
    bundle: BundlePath,
    task: Annotated[
        list[str] | None, typer.Option(help="whose program; several allowed; default: every task's")
    ] = None,
) -> None:
    """A bundle's programs as text, one command a line (docs/isa.md)."""
    loaded = load_bundle(bundle)
    chosen = [loaded.task(name) for name in task] if task else list(loaded.tasks.values())
    for number, program in enumerate(chosen):
        if len(chosen) > 1:
            if number:
                say("")
            say(f"task {program.name}: {program.commands:,} commands")
        for line in disassemble(program.program, [phase.name for phase in program.phases]):
            say(line)
