"""The pages of m3vit-tiny-camvid, made of its figures: its card in docs/model_cards, and docs/camvid_failures.md.

Usage: ``python tools/photos_card.py [--collect NAME=FILE ...] [--check]``

The figures are in ``docs/model_cards/m3vit-tiny-camvid.json``; ``--collect`` puts a measurement's JSON there:
``training`` (``report.json`` of ``tools/train_photos.py``), ``qat`` (that of ``tools/qat_photos.py``),
``qat_cpu`` (a list of runs of ``edgemoe qat``: options, and metrics as in their files' metadata), ``test``
(``edgemoe train --evaluate``), ``accuracy`` (``edgemoe accuracy``), ``expert_load`` (``edgemoe expert-load``),
``cycles`` (``report.json`` of ``edgemoe run --device sim``) and ``failures`` (``tools/photo_failures.py``).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import photos_pages

from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = ["CYCLES", "FIGURES", "collect", "digest", "digest_qat", "main", "page_problems", "pages"]

NAME = "m3vit-tiny-camvid"
DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES = DOCS / "model_cards" / f"{NAME}.json"
CYCLES = ("config", "assumed_clock_mhz", "bit_exact", "tensors_compared", "mismatches", "per_inference")
KINDS = ("training", "qat", "qat_cpu", "test", "accuracy", "expert_load", "cycles", "failures")


def digest(report: dict[str, Any]) -> dict[str, Any]:
    """What a card needs of ``tools/train_photos.py``'s report: no losses, no output, no paths of the lent machine.

    Args:
        report: the content of ``report.json``

    Returns:
        ``machine``, ``seconds``, ``chosen`` (step, file and score of what was sent), and by step ``options``,
        ``seconds``, ``steps``, ``miou`` (of the best weights), ``metrics`` (of the last) and ``curve``, the validation
        mIoU at each evaluation
    """
    steps = {}
    for name, step in report["steps"].items():
        last = max(step["weights"].values(), key=lambda told: told["steps"])
        options = {key: value for key, value in step["options"].items() if key not in ("data_root", "init")}
        rows = [row for row in step["metrics"] if row["task"] == "segmentation" and row["metric"] == "miou"]
        steps[name] = {
            "options": options | {"init": "scenes" if step["options"].get("init") else ""},
            "seconds": step["seconds"],
            "steps": last["steps"],
            "miou": step["best_miou"],
            "metrics": last["metrics"],
            "curve": [[int(row["step"]), float(row["value"])] for row in rows],
        }
    chosen = {name: {key: sent[key] for key in ("step", "file", "val_miou")} for name, sent in report["files"].items()}
    return {"machine": report["machine"], "seconds": report["seconds"], "chosen": chosen, "steps": steps}


def digest_qat(report: dict[str, Any]) -> dict[str, Any]:
    """What a card needs of ``tools/qat_photos.py``'s report: no output, no paths of the lent machine.

    Returns:
        ``machine``, ``seconds``, ``chosen`` (variants by the graphs' names), and by variant ``options`` and ``metrics``
        with the number of steps
    """
    variants = {
        name: {
            "options": {key: value for key, value in told["options"].items() if key not in ("data_root", "until")},
            "metrics": told["metrics"],
        }
        for name, told in report["variants"].items()
    }
    return {key: report[key] for key in ("machine", "seconds", "chosen")} | {"variants": variants}


def collect(figures: dict[str, Any], kind: str, content: Any) -> None:
    """Put a measurement into the figures.

    Raises:
        ValueError: there is no such kind
    """
    if kind not in KINDS:
        raise ValueError(f"--collect must be one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "cycles":  # of the whole report what a card needs, by configuration
        content = figures.get("cycles", {}) | {content["config"]: {key: content[key] for key in CYCLES}}
    digests = {"training": digest, "qat": digest_qat}
    figures[kind] = digests[kind](content) if kind in digests else content


def pages(figures: dict[str, Any]) -> dict[Path, str]:
    """Text of the pages, by their places below ``docs``."""
    return {
        Path("model_cards") / f"{NAME}.md": photos_pages.card(figures),
        Path("camvid_failures.md"): photos_pages.failures(figures["failures"]),
    }


def page_problems(docs: Path = DOCS) -> list[str]:
    """Pages that are not what the figures give; empty if all are."""
    wanted = pages(read_json(FIGURES))
    return [str(place) for place, text in wanted.items() if (docs / place).read_text(encoding="utf-8") != text]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/photos_card.py", description=f"Pages of {NAME}.")
    parser.add_argument("--collect", nargs="*", default=[], metavar="NAME=FILE", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args(arguments)
    figures = read_json(FIGURES) if FIGURES.is_file() else {}
    for pair in options.collect:
        kind, _, file = pair.partition("=")
        collect(figures, kind, read_json(Path(file)))
    if options.check:
        problems = page_problems()
        print("\n".join(f"{place} is not what {FIGURES.name} gives" for place in problems))
        return int(bool(problems))
    write_text(FIGURES, json.dumps(figures, indent=1) + "\n")
    for place, text in pages(figures).items():
        write_text(DOCS / place, text)
        print(DOCS / place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
