"""``edgemoe compile``: a model for a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import RESULTS, Batch, Config, ExpertPrefetch, JointTasks, Model, compiler_options, joint_tasks
from edgemoe.cli.output import hint, say, working
from edgemoe.cli.outputs import output_file
from edgemoe.compiler import build_bundle, joint_programs
from edgemoe.configs import find_config
from edgemoe.workloads import load_graph, model_label
from edgemoe_models.pictures import Notes

__all__ = ["command"]


def command(
    model: Model = "m3vit-micro-w8a8",
    config: Config = "pynq-z2",
    expert_prefetch: ExpertPrefetch = "auto",
    joint: JointTasks = None,
    batch: Batch = 1,
    images: Annotated[
        Path | None, typer.Option(help="folder of pictures that calibrate a float checkpoint (default: scenes)")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="how many of them at most")] = 16,
    out: Annotated[
        Path | None,
        typer.Option(help=f"bundle to write (default: {RESULTS}/<model>-<config>.emoe)", show_default=False),
    ] = None,
) -> None:
    """Compile a model for a configuration; run, demo and a board take the bundle."""
    accelerator, options, together = find_config(config), compiler_options(expert_prefetch), joint_tasks(joint)
    path = output_file(out or RESULTS / f"{model_label(model)}-{accelerator.name}.emoe", [Path(model)])
    with working(f"quantizing and compiling {model}"):
        graph = load_graph(model, target=accelerator, images=images, count=count, notes=Notes(hint))
        programs = joint_programs(
            graph.config, accelerator, options, graph.expert_bits, joint=together, batch=batch, note=hint
        )
        bundle = build_bundle(graph, accelerator, options, joint=programs)
        bundle.save(path)
    say(f"{path}: {path.stat().st_size:,} bytes, tasks {', '.join(bundle.tasks)}")
    if bundle.joint:
        say(f"one program for {'; for '.join(str(program.joined) for program in bundle.joint)}")
