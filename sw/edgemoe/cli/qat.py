"""``edgemoe qat``: quantization-aware training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import RESULTS, SCENES, Scenes, fields_as_options
from edgemoe.cli.output import note, say, working
from edgemoe.cli.outputs import output_folder
from edgemoe.extras import require
from edgemoe.workloads import float_weights, short_path
from edgemoe_models.qat.config import QatOptions

__all__ = ["command"]


@fields_as_options(QatOptions, without={"weights"})
def command(
    model: Annotated[str, typer.Option(help="trained preset or float checkpoint to start from")] = "m3vit-micro",
    out: Annotated[Path, typer.Option(help="folder for what is made")] = RESULTS / "qat",
    cache: Scenes = SCENES,
    threads: Annotated[int | None, typer.Option(min=1, help="of torch (default: all cores)")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue from <out>/checkpoint.safetensors")] = False,
    **given: Any,
) -> None:
    """Fine-tune a float checkpoint with the accelerator's integer arithmetic in the loop (docs/models.md).

    The folder gets checkpoint.safetensors (what --resume needs), log.csv and at the end, NAME being such as
    m3vit-micro-w4a8, NAME.safetensors (the Brevitas model's parameters) and NAME.graph.safetensors (the integer graph,
    for --model of the other verbs).
    """
    require("edgemoe qat", "train")
    options = QatOptions(weights=str(short_path(float_weights(model))), **given)
    output_folder(out)
    output_folder(cache)
    with working("starting PyTorch") as work:
        import torch

        from edgemoe_models.qat.loop import run

        if threads is not None:
            torch.set_num_threads(threads)
        metrics = run(options, out, cache, resume, work.detail)
    note(f"the model and its integer graph are in {out}")
    say(*json.dumps(metrics, indent=1).splitlines())
