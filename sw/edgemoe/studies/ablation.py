"""``edgemoe ablation``: each technique replaced by its naive form, measured on the RTL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgemoe.bundle import Bundle
from edgemoe.compiler import CompileError, CompilerOptions, build_bundle, compile_graph, to_bundle
from edgemoe.compiler.bound import wasted_bytes
from edgemoe.compiler.program import MAX_COMMANDS
from edgemoe.errors import DeviceError
from edgemoe.reports.tables import TextTable
from edgemoe.runtime.verify import open_verified
from edgemoe.studies.gelu_forms import compare_gelu
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.datasets import scenes
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference

__all__ = [
    "VARIANTS",
    "Variant",
    "ablation_markdown",
    "ablation_table",
    "compile_variant",
    "gelu_markdown",
    "gelu_table_view",
    "half_array",
    "one_port",
    "run_ablation",
    "split_arrays",
]

_SCENE = scenes.SPLITS["demo"].start
_ARRAYS = 3  # linear layers, attention's products, experts


@dataclass(frozen=True)
class Variant:
    """One way to run the model.

    Attributes:
        name: short, unique; may name options in braces
        technique: number in docs/architecture.md, section 7; 0 for what Edge-MoE does not name
        form: how the naive form is realised, for the table's reader
        options: to compile with; several are tried until the program is short enough
        accelerator: makes the configuration that it runs on; it may answer None: there is nothing to take away
    """

    name: str
    technique: int
    form: str
    options: tuple[CompilerOptions, ...] = field(default=(CompilerOptions(),))
    accelerator: Callable[[AcceleratorConfig], AcceleratorConfig | None] = lambda config: config


def _by_tokens(size: int) -> CompilerOptions:
    """Experts for ``size`` tokens at a time; a linear layer in one LOAD if possible, so that the program is short."""
    return CompilerOptions(moe_group=size, chunk_fraction=0.75, preload_fraction=0.0, expert_prefetch="off")


def split_arrays(config: AcceleratorConfig) -> AcceleratorConfig:
    """The configuration with a third of the columns and the same bytes of weight scratchpad.

    Raises:
        ConfigError: the columns cannot be divided
    """
    return _narrow(config, _ARRAYS, f"by-{_ARRAYS}")


def _narrow(config: AcceleratorConfig, parts: int, suffix: str) -> AcceleratorConfig:
    """One of ``parts`` equal parts of the columns, with the same bytes of weight scratchpad."""
    lanes = config.lanes_n // parts
    depth = config.weight_depth * config.lanes_n // lanes
    return dataclasses.replace(config, name=f"{config.name}-{suffix}", lanes_n=lanes, weight_depth=depth)


def one_port(config: AcceleratorConfig) -> AcceleratorConfig | None:
    """The configuration with one memory port of the same width; None if it has no more."""
    if config.axi_masters == 1:
        return None
    return dataclasses.replace(config, name=f"{config.name}-one-port", axi_masters=1)


def half_array(config: AcceleratorConfig) -> AcceleratorConfig | None:
    """The configuration with half of the columns, the same bytes of weights; None if they cannot be halved."""
    return None if config.lanes_n // 2 % config.epilogue_lanes else _narrow(config, 2, "half")


#: The first is the product.
VARIANTS: tuple[Variant, ...] = (
    Variant("all techniques", 0, "the product"),
    Variant(
        "attention, {attention_group} query at a time",
        1,
        "the rows of the head's keys and values are fetched again for every query, over the real bus into rows "
        "that nothing reads; the products use the rows on chip",
        (CompilerOptions(attention_group=1),),
    ),
    Variant(
        "attention, {attention_group} queries at a time",
        1,
        "the same for groups of queries",
        (CompilerOptions(attention_group=8),),
    ),
    Variant(
        "three-pass softmax",
        2,
        "before P·V two more passes read the scores, lanes_k a cycle: one for the maxima, one for the sums",
        (CompilerOptions(single_pass_softmax=False),),
    ),
    Variant(
        "unfused GELU",
        3,
        "between the two layers of an MLP, an expert or a head a pass reads the hidden rows, lanes_k values a cycle",
        (CompilerOptions(fused_activation=False),),
    ),
    Variant(
        "three arrays",
        4,
        "linear layers, attention's products and experts have an array each, a third of the columns, and take "
        "turns, as they depend on each other: the model runs on a third of the array, with all memories and "
        "the bus as large as before",
        accelerator=split_arrays,
    ),
    Variant(
        "experts, {moe_group} token(s) at a time",
        5,
        "gate, then all chosen experts, for one token, or for as few as the longest program allows; experts are "
        "fetched anew each time",
        tuple(_by_tokens(size) for size in (1, 2, 4, 8)),
    ),
    Variant("experts, {moe_group} tokens at a time", 5, "the same for groups of tokens", (_by_tokens(8),)),
    Variant(
        "experts after the gate",
        0,
        "no expert is fetched before the gate has chosen it; the next block's first weights still are",
        (CompilerOptions(expert_prefetch="off"),),
    ),
    Variant(
        "no overlap",
        0,
        "a command starts when the one before it has finished: no prefetch, no concurrency",
        (CompilerOptions(prefetch=False),),
    ),
    Variant(
        "one memory port",
        0,
        "one master of the same width: half the bytes a cycle of two, or of four a quarter",
        accelerator=one_port,
    ),
    Variant(
        "half the array",
        0,
        "half the columns, with the same bytes of weight scratchpad; all else as before",
        accelerator=half_array,
    ),
)


def compile_variant(
    graph: IntegerGraph, config: AcceleratorConfig, variant: Variant, *, max_commands: int = MAX_COMMANDS
) -> tuple[Bundle, CompilerOptions]:
    """The first of the variant's options whose program has at most ``max_commands``.

    Raises:
        CompileError: none of them compiles
    """
    for options in variant.options[:-1]:
        try:
            return to_bundle(compile_graph(graph, config, options, max_commands=max_commands)), options
        except CompileError as error:
            if "commands" not in str(error):
                raise
    return build_bundle(graph, config, variant.options[-1]), variant.options[-1]


def run_ablation(
    graph: IntegerGraph, config: AcceleratorConfig, track: Callable[[str], None], variants: Sequence[Variant] = VARIANTS
) -> dict[str, Any]:
    """One scene and the first task of every variant on the RTL, all of which must equal the reference.

    A variant that would take away what the configuration has not is left out.

    Returns:
        ``model``, ``config``, ``scene``, ``task``, ``rows`` (one a variant: ``variant``, ``technique``, ``form``,
        ``options`` that differ from the product, ``cycles``, ``dram_bytes``, ``cycles_ratio``, ``bytes_ratio``) and
        ``gelu`` (``gelu_forms.compare_gelu``)

    Raises:
        DeviceError: a variant's outputs differ from the reference
    """
    model = graph.config
    rows: list[dict[str, Any]] = []
    for variant in variants:
        chosen = variant.accelerator(config)
        if chosen is None:
            continue
        bundle, options = compile_variant(graph, chosen, variant)
        name = variant.name.format(**dataclasses.asdict(options))
        track(name)
        stats = _measure(bundle, name)
        size = stats["bytes_read"] + stats["bytes_written"]
        base = rows[0] if rows else {"cycles": stats["cycles"], "dram_bytes": size}
        rows.append(
            {
                "variant": name,
                "technique": variant.technique,
                "form": variant.form,
                "options": _changes(options),
                "array": f"{chosen.lanes_k} x {chosen.lanes_n}",
                "cycles": stats["cycles"],
                "dram_bytes": size,
                "wasted_bytes": stats["wasted_bytes"],
                "cycles_ratio": stats["cycles"] / base["cycles"],
                "bytes_ratio": size / base["dram_bytes"],
                "sim_seconds": stats["seconds"],
            }
        )
    return {
        "model": model.name,
        "config": config.name,
        "scene": _SCENE,
        "task": model.tasks[0].name,
        "rows": rows,
        "gelu": compare_gelu(),
    }


def _measure(bundle: Bundle, name: str) -> dict[str, Any]:
    """Statistics of one inference on the RTL."""
    model, task = bundle.model, bundle.model.tasks[0].name
    image = scenes.generate_scene(_SCENE, model.image_height, model.image_width).image
    with open_verified(bundle) as verifier:
        result = verifier.run(image, task)
    if (result.outputs != reference.run(bundle.graph(), image, task)).any():
        raise DeviceError(f"variant {name!r} differs from the integer reference")
    phases = bundle.task(task).phases
    return {**result.stats, "wasted_bytes": wasted_bytes(phases, result.stats["expert_tokens"])}


def _changes(options: CompilerOptions) -> dict[str, Any]:
    product = dataclasses.asdict(CompilerOptions())
    return {name: value for name, value in dataclasses.asdict(options).items() if value != product[name]}


def ablation_table(result: dict[str, Any]) -> TextTable:
    """The measured variants."""
    view = TextTable(
        f"{result['model']} on {result['config']}, task {result['task']}, all bit-exact",
        ["#", "variant", ">cycles", ">x", ">DRAM bytes", ">x"],
        caption="#: technique of Edge-MoE that is replaced (docs/architecture.md, section 7)",
    )
    for row in result["rows"]:
        view.add(
            str(row["technique"] or ""),
            row["variant"],
            f"{row['cycles']:,}",
            f"{row['cycles_ratio']:.2f}",
            f"{row['dram_bytes']:,}",
            f"{row['bytes_ratio']:.2f}",
        )
    return view


def gelu_table_view(result: dict[str, Any]) -> TextTable:
    """The forms of GELU: table bits a lane, and errors in LSB of the output."""
    view = TextTable(
        "GELU (technique 3): errors in LSB of the int8 output, all 12-bit inputs",
        [">unit", ">shift", "form", ">table bits", ">largest", ">mean"],
    )
    for row in result["gelu"]:
        view.add(
            f"{row['unit']:g}",
            str(row["shift"]),
            row["form"],
            f"{row['table_bits']:,}",
            f"{row['largest']:.3f}",
            f"{row['mean']:.3f}",
        )
    return view


def ablation_markdown(result: dict[str, Any]) -> str:
    """The measured variants as a page's table."""
    lines = ["| technique | variant | cycles | × | DRAM bytes | × |", "|---|---|---:|---:|---:|---:|"]
    for row in result["rows"]:
        lines.append(
            f"| {row['technique'] or ''} | {row['variant']} | {row['cycles']:,} | {row['cycles_ratio']:.2f} | "
            f"{row['dram_bytes']:,} | {row['bytes_ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def gelu_markdown(result: dict[str, Any]) -> str:
    """The forms of GELU as a page's table."""
    lines = ["| input unit | shift | form | table bits a lane | largest error | mean error |"]
    lines.append("|---|---:|---|---:|---:|---:|")
    for row in result["gelu"]:
        lines.append(
            f"| {row['unit']:g} | {row['shift']} | {row['form']} | {row['table_bits']:,} | {row['largest']:.3f} | "
            f"{row['mean']:.3f} |"
        )
    return "\n".join(lines) + "\n"
