"""The error table: our bounds, and every figure of docs/functions.md."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from edgemoe_models.arithmetic import ops
from edgemoe_models.exact.functions import erf
from edgemoe_models.ptq.activations import SMALLEST_UNIT, activation_scale_of
from edgemoe_models.studies import function_errors
from edgemoe_models.studies.function_errors import GELU_INPUTS, TABLES, cell

PAGE = Path(__file__).parents[2] / "docs" / "functions.md"


@pytest.fixture(scope="module")
def rows():
    return {(row["function"], row["inputs"], row["method"]): row for row in function_errors.results()}


def test_gelu_is_within_one_lsb_of_the_rounded_output_everywhere():
    """Exhaustive over the 12-bit inputs and the shifts, from the smallest unit up to outputs of 4000."""
    for unit in np.geomspace(SMALLEST_UNIT, 2.0, 100):
        scale = activation_scale_of(unit)
        x = GELU_INPUTS * scale.unit
        exact = x / 2 * (1 + erf(x / math.sqrt(2)))
        shifts = np.arange(4, dtype=np.uint8)
        for shift, centre, step in zip(shifts, scale.centre(shifts), scale.step(shifts), strict=True):
            rounded = np.clip(np.rint((exact - centre) / step), -127, 127)
            assert np.abs(ops.activate(GELU_INPUTS, scale.activation.table, shift) - rounded).max() <= 1, (unit, shift)


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
        if named := re.fullmatch(r"(softmax|GELU|LayerNorm): (.*)", cells[0]):
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


def test_command_prints_three_tables_and_writes_json(edgemoe, tmp_path):
    path = tmp_path / "new" / "errors.json"
    lines = edgemoe.ok("study", "functions", "--json", path).splitlines()
    assert {line.split()[0] for line in lines if "own max" in line or line in TABLES} >= set(TABLES)
    assert max(map(len, lines)) <= 80
    assert {row["function"] for row in json.loads(path.read_text())} == set(TABLES)
    edgemoe("study", "functions", "--json", tmp_path).refused(f"{tmp_path} is a folder")
