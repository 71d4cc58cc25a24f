"""The report's file: written whole or not at all, and every field checked when it is read again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.checks import FieldError
from edgemoe_models.storage.json_text import JsonError, read_json

__all__ = ["load_report", "save_report"]

_LARGEST = 1 << 50
Check = Callable[[object, str], object]


def _count(low: int) -> Check:
    return lambda value, name: checks.integer(value, name, low, _LARGEST)


def _amount(low: float) -> Check:
    return lambda value, name: checks.number(value, name, low, _LARGEST)


def _verdict(value: object, name: str) -> None:
    if value is not None:
        checks.boolean(value, name)


def _list_of(check: Check, low: int = 0) -> Check:
    def each(value: object, name: str) -> None:
        for number, item in enumerate(checks.items(value, name, low)):
            check(item, f"{name}[{number}]")

    return each


def _named(check: Check, low: int = 0) -> Check:
    def each(value: object, name: str) -> None:
        entries = checks.record(value, name, (), others=True)
        if len(entries) < low:
            raise FieldError(f"{name} must not be empty")
        for key, item in entries.items():
            check(item, f"{name}.{checks.text(key, f'a name of {name}')}")

    return each


def _record(fields: Mapping[str, Check]) -> Check:
    def all_fields(value: object, name: str) -> None:
        entries = checks.record(value, name or "it", fields, others=True)
        for key, check in fields.items():
            check(entries[key], f"{name}.{key}" if name else key)

    return all_fields


_MORE_THAN_0, _AT_LEAST_0 = 1e-9, 0.0
_COUNTS = dict.fromkeys(
    (
        "cycles",
        "macs",
        "bound_cycles",
        "ideal_cycles",
        "dram_bytes_read",
        "dram_bytes_written",
        "dram_lower_bound_bytes",
        "backbone_macs",
        "backbone_cycles",
        "backbone_bound_cycles",
    ),
    _count(1),
) | {"wasted_bytes": _count(0)}
_LAYER = _record(
    {
        "name": checks.text,
        **dict.fromkeys(("cycles", "bound_cycles", "macs", "busy_cycles", "estimated_cycles"), _amount(_AT_LEAST_0)),
        "stall_cycles": _named(_amount(_AT_LEAST_0), low=1),
    }
)
_INFERENCE = _record(
    {"task": checks.text, "image": checks.text, **_COUNTS, "expert_tokens": _named(_list_of(_count(0)))}
)
_REPORT = _record(
    {
        **dict.fromkeys(("model", "config", "config_hash", "dram_model"), checks.text),
        **dict.fromkeys(("images", "inferences"), _count(1)),
        "tasks": _list_of(checks.text, 1),
        "bit_exact": _verdict,
        **dict.fromkeys(("tensors_compared", "mismatches"), _count(0)),
        **_COUNTS,
        **dict.fromkeys(("macs_per_cycle", "dram_latency"), _count(1)),
        **dict.fromkeys(
            (
                "mac_utilisation",
                "roofline_efficiency",
                "ideal_efficiency",
                "dram_bytes_per_cycle",
                "dram_gb_per_second",
                "assumed_clock_mhz",
                "assumed_latency_ms",
            ),
            _amount(_MORE_THAN_0),
        ),
        **dict.fromkeys(("sim_seconds", "sim_cycles_per_second"), _amount(_AT_LEAST_0)),
        "metrics": _named(_named(_amount(-_LARGEST))),
        "layers": _list_of(_LAYER, 1),
        "per_inference": _list_of(_INFERENCE, 1),
    }
)


def save_report(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON; a metric that is no finite number is left out.

    Raises:
        SaveError: it cannot be written; a report that was there before is unchanged
    """
    metrics = {
        task: {name: value for name, value in values.items() if math.isfinite(value)}
        for task, values in report["metrics"].items()
    }
    write_text(path, json.dumps({**report, "metrics": metrics}, indent=1, allow_nan=False) + "\n")


def load_report(path: Path) -> dict[str, Any]:
    """Read a report that :func:`save_report` wrote.

    Raises:
        ValueError: there is none, or one of its fields is wrong; one line names the file and the field
    """
    try:
        report = read_json(path)
        _REPORT(report, "")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no report; run edgemoe sim first") from None
    except JsonError as error:
        raise ValueError(f"{error}: not a report; run edgemoe sim again") from None
    except FieldError as error:
        raise ValueError(f"{path}: not a report ({error}); run edgemoe sim again") from None
    result: dict[str, Any] = report
    return result
