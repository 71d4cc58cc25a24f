"""Model cards: ``docs/model_cards/<model>.md``, text from what the weights' files and the measured rows say.

Usage: ``python tools/model_card.py [PRESET ...] [--results FOLDER] [--check]``

A card's figures are kept beside it (``<model>.json``: accuracy rows and expert loads, as their commands wrote them), so
that the card can be made again and compared anywhere, and figures of other weights are noticed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import edgemoe_models
from edgemoe.studies.accuracy import Row, file_hash, headline
from edgemoe.workloads import QAT_PRECISIONS, qat_files, read_metadata, weights_path
from edgemoe_models.config import PRESETS, ModelConfig
from edgemoe_models.float_reference import state_shapes
from edgemoe_models.storage.atomic import write_bytes, write_text
from edgemoe_models.storage.json_text import JsonError, parse_json, read_json

__all__ = ["CARDS", "card_problems", "make_card", "update_card"]

CARDS = Path(edgemoe_models.__file__).parents[2] / "docs" / "model_cards"
_MARK = "<!-- Written by `python tools/model_card.py`; change tools/model_card.py instead. -->"
_TRAIN_COMMAND = "edgemoe train --preset {} --steps 100000 --batch 32 --device cuda --precision bfloat16"

_DATA = """\
Generated scenes (`edgemoe_models.datasets.scenes`, [models](../models.md#scenes)): a walled yard with a road, boxes,
balls, cylinders and cones, ray cast with NumPy. Training: seeds 1000000 and up; validation: 0 to 9999. No
photographs, no people, no licensed data; every picture can be made again from its seed."""

_USE = """\
To show and to test the accelerator, its compiler and its numerics with a network that has learnt something:
accuracy lost by quantization, experts' loads, equality of the RTL. A starting point for training on data of
one's own.

**Not for** any decision about the real world: it has seen nothing but these generated yards, and is not
expected to work on photographs. No public benchmark has been run."""

_LIMITS = """\
- Small: {parameters} parameters, {width} × {height} pixels. Objects with unusual colours, small or partly
  hidden ones are its usual mistakes; borders are blurred within a patch.
- The scenes of training and validation come from one generator: the figures say how well this task was
  learnt, no more.
- Milliseconds elsewhere in these pages are simulated cycles at an assumed clock; nothing has run on a board."""

_UNTRAINED = """\
**Untrained.** Its weights are random (seed 0, `edgemoe_models.random_weights`), with the outlier channels,
biases and even expert loads of trained ones. It is here to measure cycles and bytes, which hardly depend on what the
weights mean; its outputs mean nothing, so it has no accuracy."""

_TRAIN = """\
One command, on a GPU; `--resume` goes on from the last checkpoint, and `--device cpu` works too, slowly.
`--model FILE` then takes the trained weights in place of the random ones.

```
{command}
```"""

_TASKS = {"segmentation": "semantic segmentation", "depth": "depth", "normals": "surface normals", "edges": "edges"}
_SUMMARY = """\
A multi-task Mixture-of-Experts Vision Transformer (M³ViT) for {tasks} from one RGB picture. All tasks share
the backbone; each has its own gates and head, and an inference computes one task."""

_ACCURACY = """\
The first {images} validation scenes, or as many as stated; in brackets the drop against float on the same
scenes, positive is worse ([accuracy](../accuracy.md)). Bit-exact: every value equals the integer reference's."""

_SAME = """\
For one token, two tasks choose the same expert in {low:.0f} to {high:.0f} % of the cases, {mean:.0f} % on
average over blocks and pairs of tasks; independent choices with the same loads would give {chance:.0f} %."""


def make_card(name: str, rows: list[Row], loads: dict[str, Any] | None) -> str:
    """A preset's card.

    Args:
        rows: of ``build/accuracy.json``; empty for an untrained model
        loads: of ``build/expert_load.json``, if the model has experts
    """
    weights = weights_path(name)
    title = f"# Model card: {name}\n\n{_MARK}\n"
    if not weights.is_file():
        return _join(title, _UNTRAINED, "## Shape", _shape(PRESETS[name]), *_how_to_train(PRESETS[name]))
    config = ModelConfig.from_json(read_metadata(weights)["config"])
    parts = [
        title,
        _summary(config),
        "## Files",
        _files(weights),
        "## Shape",
        _shape(config),
        "## Data",
        _DATA,
        "## Training",
        _training(weights),
    ]
    if rows:
        parts += ["## Accuracy", _accuracy(rows)]
    if loads is not None:
        parts += ["## Experts", _experts(name, loads)]
    limits = _LIMITS.format(parameters=_parameters(config), width=config.image_width, height=config.image_height)
    return _join(*parts, "## Intended use", _USE, "## Limits", limits)


def _join(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _parameters(config: ModelConfig) -> str:
    return f"{sum(math.prod(shape) for shape in state_shapes(config).values()) / 1e6:.2f} M"


def _summary(config: ModelConfig) -> str:
    names = [_TASKS.get(task.kind, task.kind) for task in config.tasks]
    return _SUMMARY.format(tasks=" and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part))


def _shape(config: ModelConfig) -> str:
    picture = f"{config.image_width} × {config.image_height} pixels, {config.patch}"
    rows = {
        "picture, patch": picture,
        "tokens, width, heads, blocks": f"{config.num_tokens}, {config.dim}, {config.heads}, {config.depth}",
    }
    if config.num_experts:
        rows["experts"] = (
            f"{config.num_experts} in one of {config.moe_every} blocks, top {config.top_k}, "
            f"hidden {config.expert_hidden}"
        )
    rows |= {
        "dense MLP": f"hidden {config.mlp_hidden}",
        "tasks (channels)": ", ".join(f"{task.name} ({task.channels})" for task in config.tasks),
        "parameters": _parameters(config),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _how_to_train(config: ModelConfig) -> list[str]:
    if not all(task.is_dense for task in config.tasks):
        return []  # the scenes have no labels for it
    return ["## To train it", _TRAIN.format(command=_TRAIN_COMMAND.format(config.name))]


def _model_files(weights: Path) -> list[tuple[Path, str]]:
    """Files that there are, and what they are."""
    files = [(weights, "float32 weights; PTQ W8A8 is made from it when it is asked for")]
    for suffix, precision in QAT_PRECISIONS.items():
        qat = qat_files(weights, suffix)
        files += [
            (qat.graph, f"{precision}: integer graph, what is compiled"),
            (qat.latent, f"{precision}: latent weights of the Brevitas model"),
        ]
    return [(path, what) for path, what in files if path.is_file()]


def _files(weights: Path) -> str:
    lines = [
        "In `models/edgemoe_models/weights`; bundles compiled from the graphs are in `sw/edgemoe/bundles`.",
        "",
        "| file | | bytes | sha256 |",
        "|---|---|---:|---|",
    ]
    lines += [
        f"| `{path.name}` | {what} | {path.stat().st_size:,} | {file_hash(path)}… |"
        for path, what in _model_files(weights)
    ]
    return "\n".join(lines)


def _training(weights: Path) -> str:
    """How each trained file came to be, from its metadata."""
    lines = [
        "Options are those that the files' metadata holds. The time is wall clock, one thread of a shared x86-64",
        "virtual machine.",
        "",
    ]
    for path, _ in _model_files(weights):
        metadata = read_metadata(path)
        if "train" not in metadata:
            continue
        options = {
            key.replace("_", " "): Path(value).name if isinstance(value, str) else value
            for key, value in parse_json(metadata["train"]).items()
            if key not in ("seed", "steps", "minutes") and value not in ("", 0, False)
        }
        said = ", ".join(f"{key} {value}" for key, value in options.items())
        minutes = float(metadata["train_seconds"]) / 60
        lines.append(
            f"- `{path.name}`: {int(metadata['steps']):,} steps in {minutes:.0f} minutes, "
            f"seed {metadata['seed']}; {said}"
        )
    return "\n".join(lines)


def _accuracy(rows: list[Row]) -> str:
    """The rows as a table."""
    tasks = {task: headline(metrics) for task, metrics in rows[0]["metrics"].items()}
    head = " | ".join(f"{task}: {rule.heading} (drop, {rule.unit})" for task, rule in tasks.items())
    lines = [
        _ACCURACY.format(images=rows[0]["images"]),
        "",
        f"| precision | executor | scenes | {head} | bit-exact |",
        f"|---|---|---:|{'---:|' * len(tasks)}---|",
    ]
    for row in rows:
        cells = [f"{row['metrics'][task][rule.metric]:.4f} ({row['drop'][task]:+.2f})" for task, rule in tasks.items()]
        equal = "" if "equal" not in row else "yes" if row["equal"] else "**no**"
        lines.append(f"| {row['precision']} | {row['executor']} | {row['images']} | {' | '.join(cells)} | {equal} |")
    return "\n".join([*lines, "", "```", "make accuracy", "```"])


def _experts(name: str, loads: dict[str, Any]) -> str:
    """Loads by block and task, and how far the tasks agree."""
    lines = [
        f"Share of the visits that each expert gets ({loads['precision']}, {loads['images']} validation scenes; "
        "`edgemoe expert-load`).",
        "",
        f"![Expert loads by block and task]({name}-expert-load.png)",
        "",
        "| block | task | busiest / mean | entropy, bits | unused in all scenes | unused in one scene |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {block['block']} | {task} | {load['busiest_over_mean']:.2f} | {load['entropy_bits']:.2f} | "
        f"{len(load['unused'])} | {load['image_unused']:.2f} |"
        for block in loads["blocks"]
        for task, load in block["tasks"].items()
    ]
    if pairs := [pair for block in loads["blocks"] for pair in block["pairs"].values()]:
        same = [100 * pair["same_experts"] for pair in pairs]
        chance = 100 * sum(pair["by_chance"] for pair in pairs) / len(pairs)
        lines += ["", _SAME.format(low=min(same), high=max(same), mean=sum(same) / len(same), chance=chance)]
    return "\n".join(lines)


def update_card(name: str, results: Path, folder: Path = CARDS) -> Path:
    """Write a card and, for a trained model, its figures and picture; returns the card's path.

    Args:
        results: folder of ``accuracy.json``, ``expert_load.json`` and ``expert_load.png``, which a trained model needs

    Raises:
        ValueError: results are missing, or of another model or other files
    """
    rows, loads = [], None
    if weights_path(name).is_file():
        rows, loads = _read(results / "accuracy.json"), _read(results / "expert_load.json")
        if problems := _row_problems(name, rows):
            raise ValueError(f"{results / 'accuracy.json'}: {problems[0]}; run make accuracy")
        write_text(folder / f"{name}.json", json.dumps({"accuracy": rows, "expert_load": loads}, indent=1) + "\n")
        write_bytes(folder / f"{name}-expert-load.png", (results / "expert_load.png").read_bytes())
    card = folder / f"{name}.md"
    write_text(card, make_card(name, rows, loads))
    return card


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, JsonError) as error:
        raise ValueError(f"{path}: no results ({error}); run make accuracy") from None


def _row_problems(name: str, rows: list[Row]) -> list[str]:
    problems = [f"the accuracy is of {row['model']}, not of {name}" for row in rows if row["model"] != name]
    folder = weights_path(name).parent
    for file, found in {item for row in rows for item in row["files"].items()}:
        path = folder / file
        if not path.is_file() or file_hash(path) != found:
            problems.append(f"{file} is not the file whose accuracy was measured")
    return problems


def card_problems(name: str, folder: Path = CARDS) -> list[str]:
    """Why a card is out of date; empty if it is not."""
    card, figures = folder / f"{name}.md", folder / f"{name}.json"
    if not card.is_file():
        return [f"{card.name} is missing"]
    values = read_json(figures) if figures.is_file() else {"accuracy": [], "expert_load": None}
    problems = _row_problems(name, values["accuracy"])
    if not problems and card.read_text(encoding="utf-8") != make_card(name, values["accuracy"], values["expert_load"]):
        problems.append(f"{card.name} is not what its figures and files give")
    return problems


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python tools/model_card.py",
        description="Write docs/model_cards from the weights' metadata and from what `make accuracy` measured.",
    )
    parser.add_argument("model", nargs="*", help="preset; default: all")
    parser.add_argument("--results", type=Path, default=Path("build"), help="folder of accuracy.json, expert_load.*")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    chosen = parser.parse_args(arguments)
    for name in chosen.model or PRESETS:
        if not chosen.check:
            print(update_card(name, chosen.results))
        elif problems := card_problems(name):
            print(
                f"model_card: {'; '.join(problems)}; run make accuracy, then python tools/model_card.py",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
