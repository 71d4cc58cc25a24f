"""``edgemoe train``: a preset on several tasks. Several processes: ``torchrun ... -m edgemoe.cli train ...``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import RESULTS, SCENES, Scenes, fields_as_options
from edgemoe.cli.output import note, say, working
from edgemoe.cli.outputs import output_folder
from edgemoe.extras import require
from edgemoe_models.train.config import TrainConfig, read_options

__all__ = ["command"]


@fields_as_options(TrainConfig)
def command(
    config: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of options; the command line goes before it")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help=f"folder for what is made (default: {RESULTS}/train/<preset>)")
    ] = None,
    cache: Scenes = SCENES,
    resume: Annotated[bool, typer.Option("--resume", help="continue from <out>/checkpoint.safetensors")] = False,
    evaluate: Annotated[
        Path | None, typer.Option(help="only measure this weights file on --val-scenes pictures")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="of torch on the CPU")] = 1,
    **given: Any,
) -> None:
    """Train a preset on several tasks; prints the metrics on held-out pictures (docs/models.md)."""
    require("edgemoe train", "train")
    chosen = TrainConfig(**((read_options(config) if config else {}) | given))
    folder = output_folder(out or RESULTS / "train" / chosen.preset)
    output_folder(cache)
    with working("starting PyTorch") as work:
        import torch

        from edgemoe_models.train.loop import measure, run

        torch.set_num_threads(threads)
        if evaluate is not None:
            metrics = measure(chosen, evaluate, cache, work.detail)
        else:
            metrics = run(chosen, folder, cache, resume, work.detail)
    if metrics and evaluate is None:
        note(f"the model is {folder / f'{chosen.preset}.safetensors'}")
    if metrics:
        say(*json.dumps(metrics, indent=1).splitlines())
