"""``edgemoe ablation``: each technique replaced by its naive form, on the RTL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import RESULTS, Config, Model, write_json
from edgemoe.cli.output import say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.configs import find_config
from edgemoe.extras import require
from edgemoe.workloads import load_graph
from edgemoe_models.storage.atomic import write_text

__all__ = ["command"]


def command(
    model: Model = "m3vit-micro",
    config: Config = "pynq-z2",
    out: Annotated[Path, typer.Option(help="folder for ablation.json and .md")] = RESULTS,
) -> None:
    """Cycles and DRAM bytes with each technique replaced by its naive form, on the RTL."""
    require("edgemoe ablation", "sim")
    from edgemoe.studies.ablation import ablation_markdown, ablation_table, gelu_markdown, gelu_table_view, run_ablation

    accelerator = find_config(config)
    rows, page = (output_file(out / f"ablation.{kind}") for kind in ("json", "md"))
    with working(f"quantizing {model}") as work:
        result = run_ablation(
            load_graph(model, target=accelerator), accelerator, lambda what: work.step(f"simulating: {what}")
        )
    write_json(rows, result)
    write_text(page, ablation_markdown(result) + "\n" + gelu_markdown(result))
    show(ablation_table(result))
    say("")
    show(gelu_table_view(result))
    say(f"{rows}, {page}")
