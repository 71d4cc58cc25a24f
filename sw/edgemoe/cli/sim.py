"""``edgemoe sim``: a model on the simulated accelerator, every tensor compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import RESULTS, Config, Dram, ExpertPrefetch, Model, compiler_options
from edgemoe.cli.output import say, show, working
from edgemoe.cli.outputs import output_folder
from edgemoe.compiler import build_bundle
from edgemoe.configs import find_config
from edgemoe.errors import DeviceError
from edgemoe.extras import require
from edgemoe.reports.cycles import build_report, summary, table
from edgemoe.reports.files import save_report
from edgemoe.workloads import load_graph, model_label

__all__ = ["command"]


def command(
    model: Model = "m3vit-micro-w8a8",
    config: Config = "pynq-z2",
    expert_prefetch: ExpertPrefetch = "auto",
    dram: Dram = "plain",
    images: Annotated[int, typer.Option(min=1, help="number of scenes")] = 1,
    out: Annotated[Path, typer.Option(help="folder for the report and the pictures")] = RESULTS / "sim",
) -> None:
    """Run a model on the Verilated accelerator and compare every tensor with the integer reference."""
    accelerator, options = find_config(config), compiler_options(expert_prefetch)
    require("edgemoe sim", "sim")
    output_folder(out)
    from edgemoe.jobs.scene_run import is_trained, simulate
    from edgemoe.runtime.verify import open_verified
    from edgemoe_sim.dram import find_dram_model

    find_dram_model(dram)

    with working(f"quantizing and compiling {model}") as work:
        graph = load_graph(model, target=accelerator)
        bundle = build_bundle(graph, accelerator, options)
        bundle.save(out / f"{model_label(model)}-{accelerator.name}.emoe")
        work.step("building the simulator (about a minute, once)")
        with open_verified(bundle, dram_model=dram, building=work.detail) as verifier:
            work.step("simulating")
            result = simulate(
                verifier,
                graph,
                images,
                out,
                lambda what, share: work.detail(f"simulating {what}", share),
                is_trained(model),
            )
        report = build_report(bundle, result.runs, result.metrics, result.comparisons, dram_model=dram)
        save_report(report, out / "report.json")
    show(table(report))
    for line in summary(report):
        say(line)
    say(f"report and pictures are in {out}")
    if not report["bit_exact"]:
        raise DeviceError(
            f"{report['mismatches']} values differ from the integer reference; first: {result.first_mismatch}"
        )
