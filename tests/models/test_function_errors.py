"""The error table: our bounds, and every figure of docs/functions.md."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from edgemoe_models.arithmetic import ops
from edgemoe_models.arithmetic.tables import gelu_table
from edgemoe_models.exact.functions import erf
from edgemoe_models.ptq.layers import SMALLEST_GELU_SCALE
from edgemoe_models.studies import function_errors
from edgemoe_models.studies.function_errors import GELU_INPUTS, TABLES, cell

PAGE = Path(__file__).parents[2] / "docs" / "functions.md"


@pytest.fixture(scope="module")
def rows():
    return {(row["function"], row["inputs"], row["method"]): row for row in function_errors.results()}


def shift_changes():
    """Scales at which ``g`` grows, and their neighbours."""
    edges = [SMALLEST_GELU_SCALE * 2**g for g in range(4)]
    around = [edge * (1 + side * 1e-9) for edge in edges for side in (-1, 0, 1)]
    return [scale for scale in around if scale >= SMALLEST_GELU_SCALE]


def test_gelu_is_within_one_lsb_of_the_rounded_output_everywhere():
    """Exhaustive over the 11-bit inputs, at the smallest scale, where g changes, and up to outputs of 1000."""
    scales = np.concatenate([shift_changes(), np.geomspace(SMALLEST_GELU_SCALE, 8.0, 400)])
    assert {gelu_table(scale)[1] for scale in scales} == {0, 1, 2, 3}
    for scale in scales:
        table, shift = gelu_table(scale)
        x = GELU_INPUTS * (scale / 2**shift)
        exact = x / 2 * (1 + erf(x / math.sqrt(2)))
        rounded = np.clip(np.rint(exact / scale), -127, 127)
        assert np.abs(ops.gelu(GELU_INPUTS, table, shift) - rounded).max() <= 1, scale


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
