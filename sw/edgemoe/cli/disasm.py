"""``edgemoe disasm``: a bundle's programs as text."""

from __future__ import annotations

from typing import Annotated

import typer

from edgemoe.bundle import Bundle, BundleError, Joint, Task
from edgemoe.cli.options import BundlePath, load_bundle
from edgemoe.cli.output import say
from edgemoe_hw.spec.disassembler import disassemble

__all__ = ["command"]


def command(
    bundle: BundlePath,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK|A+B", help="whose program, or that of several tasks; several allowed; default: every task's"
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="the program of a batch of so many images")] = 1,
) -> None:
    """A bundle's programs as text, one command a line (docs/isa.md)."""
    loaded = load_bundle(bundle)
    chosen = [_find(loaded, name.split("+"), images) for name in task or loaded.tasks]
    for number, program in enumerate(chosen):
        if len(chosen) > 1:
            if number:
                say("")
            say(f"{program.joined}: {program.commands:,} commands")
        for line in disassemble(program.program, [phase.name for phase in program.phases]):
            say(line)


def _find(bundle: Bundle, tasks: list[str], images: int) -> Task | Joint:
    names = [bundle.task(name).name for name in tasks]
    if len(names) == images == 1:
        return bundle.task(names[0])
    if (found := bundle.find_joint(names, images)) is None:
        known = "; ".join(str(joint.joined) for joint in bundle.joint) or "none of several tasks or images"
        wanted = "+".join(names) + (f" of {images} images" if images > 1 else "")
        raise BundleError(f"this bundle has no program of {wanted}; it has {known}")
    return found
