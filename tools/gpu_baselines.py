"""The GPU rows of the comparison (docs/benchmarks.md), in one go: a card is often lent for a few minutes only.

Usage: ``python tools/gpu_baselines.py [--out FILE] [--seconds S] [--limit S] [--model M ...] [--batch B ...]``

Every GPU baseline of ``edgemoe.studies.baselines`` on the three models, batches 1, 8 and 64: float32 and bfloat16,
PyTorch eager, CUDA graphs, torch.compile, ONNX Runtime and TensorRT where they are installed. Medians after a warm-up;
energy by NVML. Needs PyTorch with CUDA, NumPy and safetensors; nvidia-ml-py for the energy. The file is written after
each row, so that a machine taken away costs only what is not measured yet; torch.compile, which takes minutes, is last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for _package_root in ("hw", "models", "sim", "sw"):  # a lent machine has a checkout and nothing installed from it
    sys.path.insert(0, str(ROOT / _package_root))

from edgemoe.studies.baselines.measurement import Effort  # noqa: E402
from edgemoe.studies.baselines.suite import BASELINES, machine, measure_baseline  # noqa: E402
from edgemoe.studies.baselines.workload import load_workload  # noqa: E402
from edgemoe_models.storage.atomic import write_text  # noqa: E402
from edgemoe_models.storage.json_text import read_json  # noqa: E402

MODELS = ("m3vit-micro", "m3vit-tiny", "deit-tiny")
BATCHES = (1, 8, 64)


def _driver() -> str | None:
    """Name, driver and power limit of the cards, as nvidia-smi says it."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _line(row: dict[str, Any], spent: float) -> str:
    what = f"{row['model']:12s} {row['runtime']:18s} {row['precision']:9s} {row['experts']:7s} batch {row['batch']:2d}"
    if row["status"] != "ok":
        return f"{what}  {row['status']}"
    energy = "" if row["energy_mj"] is None else f", {row['energy_mj']:.2f} mJ"
    return f"{what}  {row['ms']:.4f} ms an image{energy}  ({spent:.0f} s)"


def markdown(result: dict[str, Any]) -> str:
    """The table of docs/benchmarks.md: milliseconds and millijoules an image of all rows that were measured."""
    lines = [
        "| model | runtime | numbers, experts | batch | ms an image | ms a batch | mJ an image | against float |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for row in sorted(
        (row for row in result["rows"] if row["status"] == "ok"), key=lambda row: MODELS.index(row["model"])
    ):
        same = (
            f"{row['max_abs_difference'] / row['largest_output']:.0e}"
            if "equal" in row
            else f"{row['agreement']:.1%} same"
        )
        energy = "" if row["energy_mj"] is None else f"{row['energy_mj']:.1f}"
        what = f"{row['model']} | {row['runtime']} | {row['precision']} {row['experts']} | {row['batch']}"
        lines.append(f"| {what} | {row['ms']:.3f} | {row['batch_ms']:.2f} | {energy} | {same} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status: 1 where float32 outputs differ from the float model's."""
    parser = argparse.ArgumentParser(prog="python tools/gpu_baselines.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/gpu_baselines.json"))
    parser.add_argument("--seconds", type=float, default=0.5, help="of timed steps a row")
    parser.add_argument("--limit", type=float, default=420.0, help="seconds after which no row is begun")
    parser.add_argument("--runtime", nargs="+", help="only these, such as 'torch.compile CUDA'; default: all")
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--table", type=Path, help="measure nothing, print this file's rows as Markdown")
    chosen = parser.parse_args(arguments)
    if chosen.table:
        print(markdown(read_json(chosen.table)))
        return 0
    effort = Effort(warm_up_seconds=0.3, seconds=chosen.seconds)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    result = {"machine": {**machine(), "nvidia_smi": _driver()}, "rows": rows}
    begin = time.perf_counter()
    workloads = {model: load_workload(model, max(chosen.batch)) for model in chosen.model}
    suite = sorted(
        (b for b in BASELINES if b.device == "cuda" and b.runtime in (chosen.runtime or [b.runtime])),
        key=lambda b: "compile" in b.runtime,
    )
    for baseline in suite:
        for workload in workloads.values():
            for batch in chosen.batch:
                spent = time.perf_counter() - begin
                if spent > chosen.limit:
                    print(
                        f"not measured after {spent:.0f} s: {baseline.runtime}, {baseline.precision}, "
                        f"{workload.config.name}, batch {batch}",
                        flush=True,
                    )
                    continue
                rows.append(measure_baseline(baseline, workload, batch, os.cpu_count() or 1, effort))
                print(_line(rows[-1], time.perf_counter() - begin), flush=True)
                write_text(chosen.out, json.dumps(result, indent=1) + "\n")
    return int(any(row.get("equal") is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
