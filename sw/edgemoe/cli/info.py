"""``edgemoe info``: what is in a bundle."""

from __future__ import annotations

from edgemoe.cli.options import BundlePath, load_bundle
from edgemoe.cli.output import say, show
from edgemoe.reports.tables import TextTable
from edgemoe_models.config import ACTIVATIONS

__all__ = ["command"]


def command(bundle: BundlePath) -> None:
    """What is in a bundle: model, configuration, and each task's program."""
    loaded = load_bundle(bundle)
    model, config = loaded.model, loaded.config
    say(
        f"model {model.name}: {model.image_width}x{model.image_height} pixels, {model.num_tokens} tokens "
        f"of {model.dim}, {model.depth} blocks"
    )
    experts = ""
    if model.num_experts:
        experts = f"{model.num_experts} experts, top {model.top_k}, expert weights int{loaded.graph().expert_bits}; "
    say(f"{experts}activation {ACTIVATIONS[model.activation]}")
    say(
        f"config {config.name}: {config.lanes_k}x{config.lanes_n} MACs, "
        f"{config.dram_bytes_per_cycle:.4g} DRAM bytes a cycle, hash {config.content_hash[:16]}"
    )
    say(f"weights and parameters: {loaded.data.size:,} bytes, shared by all tasks")
    table = TextTable("", ["task", ">commands", ">bytes loaded", ">est. cycles", ">output", ">scale"])
    for task in loaded.tasks.values():
        cycles = sum(phase.estimated_cycles for phase in task.phases)
        table.add(
            task.name,
            f"{task.commands:,}",
            f"{task.load_bytes:,}",
            f"{cycles:,}",
            f"{task.output_rows} x {task.output_channels}",
            f"{task.output_scale:.4g}",
        )
    show(table)
