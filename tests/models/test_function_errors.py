"""The error table: our bounds, and every figure of docs/functions.md."""

import json
import math
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from edgemoe_models.arithmetic import ops
from edgemoe_models.arithmetic.tables import activation_table
from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.exact.functions import ACTIVATION_FUNCTIONS, sigmoid_exact
from edgemoe_models.ptq.activations import SMALLEST_UNIT, activation_scale_of
from edgemoe_models.studies import function_errors
from edgemoe_models.studies.function_errors import ACTIVATION_INPUTS, TABLES, cell

PAGE = Path(__file__).parents[2] / "docs" / "functions.md"


@pytest.fixture(scope="module")
def rows():
    return {(row["function"], row["inputs"], row["method"]): row for row in function_errors.results()}


#: By Python's own functions, not by those under test.
EXACT = {
    "gelu": lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2)),
    "silu": lambda x: x / (1 + math.exp(-x)) if x > -700 else 0.0,
    "relu": lambda x: max(x, 0.0),
    "quick-gelu": lambda x: x / (1 + math.exp(-1.702 * x)) if x > -400 else 0.0,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_keep_the_bound_of_decision_0008_everywhere(kind):
    """Exhaustive over the 12-bit inputs and the shifts, from the smallest unit up to outputs of 4000."""
    for unit in np.geomspace(SMALLEST_UNIT[kind], 2.0, 100):
        scale = activation_scale_of(kind, unit)
        exact = np.array([EXACT[kind](x) for x in (ACTIVATION_INPUTS * scale.unit).tolist()])
        shifts = np.arange(4, dtype=np.uint8)
        for shift, centre, step in zip(shifts, scale.centre(shifts), scale.step(shifts), strict=True):
            limited = np.clip((exact - centre) / step, -127, 127)
            found = ops.activate(ACTIVATION_INPUTS, scale.activation.table, shift)
            assert np.abs(found - limited).max() <= 0.5 + (0.5 / 2.0**shift if shift else 0) + 1e-9, (unit, shift)
            assert np.abs(found - np.rint(limited)).max() <= 1, (unit, shift)


def test_sigmoids_table_where_a_library_could_round_either_way():
    """At a scale that makes an entry a tie but for its last bits, the exact value decides, not the C library."""
    entry = 200
    low, high = 0.0137, 0.02

    def value(unit):
        return entry / (1 + math.exp(entry * unit))

    tie = math.floor(value(low)) - 0.5
    assert value(high) < tie < value(low)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) > tie else (low, middle)
    assert abs(value(low) - tie) < 1e-12
    for unit in (low, high):
        exact = entry * sigmoid_exact(Decimal(-entry * unit))
        table = activation_table("silu", unit).astype(int)
        assert table[-1] - table[entry] == int(exact.to_integral_value())


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_tables_refuse_units_with_which_they_would_end_too_early(kind):
    if kind == "relu":
        assert set(activation_table(kind, 1e-30)) == {5}
    else:
        with pytest.raises(ValueError, match=f"unit of a {ACTIVATIONS[kind]} must be at least 0.0"):
            activation_table(kind, SMALLEST_UNIT[kind] * 0.999)
    with pytest.raises(ValueError, match=f"unit of a {ACTIVATIONS[kind]} must be positive and finite, not 0"):
        activation_table(kind, 0.0)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_exact_functions_are_pythons(kind):
    x = np.linspace(-40, 40, 20011)
    assert np.abs(ACTIVATION_FUNCTIONS[kind](x) - [EXACT[kind](v) for v in x.tolist()]).max() < 1e-8


def test_layer_norm_is_within_one_lsb_of_the_rounded_output(rows):
    ours = [row for (function, _, method), row in rows.items() if (function, method) == ("LayerNorm", "ours")]
    assert len(ours) == 10 and max(row["rounded_max_lsb"] for row in ours) == 1


def test_no_method_betters_rounding(rows):
    for (function, inputs, method), row in rows.items():
        if method == "float64, rounded":
            others = [r for (f, i, _), r in rows.items() if (f, i) == (function, inputs)]
            assert row["int8_max_lsb"] <= 0.5 + 1e-9 and row["rounded_max_lsb"] == 0
            assert row["int8_mean_lsb"] <= min(other["int8_mean_lsb"] for other in others) + 1e-9


def documented():
    """Every table row of the page: (function, columns, inputs, {method: cells})."""
    found, header = [], []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [part.strip() for part in line.strip("|").split("|")]
        if not line.startswith("|") or set(line) <= {"|", "-"}:
            continue
        if named := re.fullmatch(r"(softmax|GELU|SiLU|ReLU|QuickGELU|LayerNorm): (.*)", cells[0]):
            function, columns, header = named[1], named[2].split(" / "), cells[1:]
        else:
            found.append((function, columns, cells[0], dict(zip(header, cells[1:], strict=True))))
    return found


@pytest.mark.parametrize(("function", "columns", "inputs", "cells"), documented())
def test_documented_figures(rows, function, columns, inputs, cells):
    keys = {title: key for key, title in TABLES[function][1].items()}
    for method, text in cells.items():
        row = rows[function, inputs, method]
        for column, figure in zip(columns, text.split(" / "), strict=True):
            found = float(cell(keys[column], row[keys[column]]).rstrip(" %"))
            assert found == pytest.approx(float(figure.rstrip(" %")), rel=0.03, abs=1e-7), (method, column)


def test_command_prints_all_tables_and_writes_json(edgemoe, tmp_path):
    path = tmp_path / "new" / "errors.json"
    lines = edgemoe.ok("study", "functions", "--json", path).splitlines()
    assert {line.split()[0] for line in lines if "own max" in line or line in TABLES} >= set(TABLES)
    assert max(map(len, lines)) <= 80
    assert {row["function"] for row in json.loads(path.read_text())} == set(TABLES)
    edgemoe("study", "functions", "--json", tmp_path).refused(f"{tmp_path} is a folder")
