"""``edgemoe info``: what is in a bundle."""

from __future__ import annotations

from edgemoe.bundle import Bundle
from edgemoe.cli.options import BundlePath, load_bundle
from edgemoe.cli.output import say, show
from edgemoe.reports.tables import TextTable
from edgemoe_models.config import ACTIVATIONS

__all__ = ["command"]


def command(bundle: BundlePath) -> None:
    """What is in a bundle: model, configuration, each task's program, and those of several tasks or images."""
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
        table.add(
            task.name,
            f"{task.commands:,}",
            f"{task.load_bytes:,}",
            f"{task.estimated_cycles:,}",
            f"{task.output_rows} x {task.output_channels}",
            f"{task.output_scale:.4g}",
        )
    show(table)
    if loaded.joint:
        show(_joint_table(loaded))


def _joint_table(bundle: Bundle) -> TextTable:
    """The programs of several tasks or images; ``of alone``: share of what its predictions take one by one."""
    table = TextTable("", ["in one program", ">images", ">commands", ">bytes loaded", ">est. cycles", ">of alone"])
    for joint in bundle.joint:
        names, images = joint.joined.tasks, joint.joined.images
        alone = images * sum(bundle.task(name).estimated_cycles for name in names)
        figures = (images, joint.commands, joint.load_bytes, joint.estimated_cycles)
        table.add(names[0], *(f"{figure:,}" for figure in figures), f"{joint.estimated_cycles / alone:.0%}")
        for name in names[1:]:
            table.add(name, *[""] * (len(figures) + 1))
    return table
