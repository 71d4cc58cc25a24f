"""Float and integer accuracy, through ``edgemoe study evaluate``."""

import json


def test_rows(edgemoe, tmp_path):
    out = tmp_path / "rows.json"
    text = edgemoe.ok("study", "evaluate", "--scenes", 4, "--cache", tmp_path, "--json", out)
    rows = json.loads(out.read_text())
    assert [row["executor"] for row in rows] == ["float", "integer (PTQ W8A8)"]
    for row in rows:
        assert row["images"] == 4
        assert 0.2 < row["metrics"]["segmentation"]["miou"] <= 1
        assert 0 < row["metrics"]["depth"]["rmse"] < 2
        assert f"{row['metrics']['depth']['rmse']:.4f}" in text
    assert text.startswith("m3vit-micro, 4 validation scenes\n")


def test_missing_weights(edgemoe, tmp_path):
    edgemoe("study", "evaluate", "--model", tmp_path / "none.safetensors").refused("none.safetensors")
