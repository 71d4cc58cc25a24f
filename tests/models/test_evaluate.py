"""The accuracy command: float and integer rows, and refusals."""

import json

from edgemoe_models.evaluation import evaluate


def test_rows(tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert evaluate.main(["--scenes", "4", "--cache", str(tmp_path), "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["executor"] for row in rows] == ["float", "integer (PTQ W8A8)"]
    for row in rows:
        assert row["images"] == 4
        assert 0.2 < row["metrics"]["segmentation"]["miou"] <= 1
        assert 0 < row["metrics"]["depth"]["rmse"] < 2
    assert "m3vit-micro, float, 4 scenes: segmentation miou" in capsys.readouterr().out


def test_missing_weights(tmp_path, capsys):
    assert evaluate.main(["--weights", str(tmp_path / "none.safetensors")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("evaluate: ") and "none.safetensors" in message
