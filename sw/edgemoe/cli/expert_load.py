"""``edgemoe expert-load``: which experts each task uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import RESULTS, write_json
from edgemoe.cli.output import hint, say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.studies.expert_load import expert_load_table, held_out_load
from edgemoe.studies.expert_plot import draw_expert_load
from edgemoe.workloads import best_model, load_graph
from edgemoe_models.pictures import Notes

__all__ = ["command"]


def command(
    model: Annotated[str | None, typer.Option(help="default: m3vit-micro, QAT W8A8 if there")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="held-out scenes, or pictures of --images")] = 64,
    images: Annotated[Path | None, typer.Option(help="folder of pictures (default: generated scenes)")] = None,
    out: Annotated[Path, typer.Option(help="folder for expert_load.json and .png")] = RESULTS,
) -> None:
    """Which experts each task uses, how evenly, and how far the tasks agree; with a picture."""
    figures, picture = (output_file(out / f"expert_load.{kind}") for kind in ("json", "png"))
    chosen = model or best_model()
    with working(f"quantizing {chosen}") as work:
        graph = load_graph(chosen)
        statistics = held_out_load(
            chosen, graph, scenes, lambda share: work.detail("expert load", share), images, Notes(hint)
        )
        write_json(figures, statistics)
        draw_expert_load(statistics, picture)
    show(expert_load_table(statistics))
    say(f"{figures}, {picture}")
