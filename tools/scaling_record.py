"""The scaling study of docs/scaling.md: rows in ``docs/measurements/scaling.json``, tables and pictures of them.

Usage: ``python tools/scaling_record.py [--take scaling.json] [--check]``

``--take`` takes a file that ``edgemoe study scaling`` wrote; without ``--rtl`` it has no rows of the RTL, and those
that were kept stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from accelerator_record import update

from edgemoe.studies.scaling_plot import draw_axes, draw_techniques
from edgemoe.studies.scaling_report import scaling_markdown
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = ["PAGE", "RECORD", "load", "main", "page_of"]

_DOCS = Path(__file__).parents[1] / "docs"
RECORD, PAGE = _DOCS / "measurements" / "scaling.json", _DOCS / "scaling.md"
Results = dict[str, list[dict[str, Any]]]


def load() -> Results:
    """The kept rows: ``axes``, ``techniques`` and ``rtl``."""
    results: Results = read_json(RECORD)
    return results


def page_of(results: Results) -> str:
    """The page with these rows' tables."""
    page = PAGE.read_text(encoding="utf-8")
    for name, table in scaling_markdown(results).items():
        page = update(page, name, table)
    return page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rows, tables and pictures of the scaling study.")
    parser.add_argument("--take", type=Path, metavar="FILE", help="scaling.json of edgemoe study scaling")
    parser.add_argument("--check", action="store_true", help="only compare; another page is an error")
    options = parser.parse_args(arguments)
    results = load() if RECORD.exists() else {}
    if options.take is not None:
        taken = read_json(options.take)
        results = {**taken, "rtl": taken["rtl"] or results.get("rtl", [])}
    page = page_of(results)
    if options.check:
        return int(page != PAGE.read_text(encoding="utf-8"))
    write_text(RECORD, json.dumps(results, indent=1) + "\n")
    write_text(PAGE, page)
    draw_axes(results["axes"], _DOCS / "images" / "scaling-axes.png")
    draw_techniques(results["techniques"], _DOCS / "images" / "scaling-techniques.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
