"""The examples of docs/runtime.md run as they are written."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"


def test_examples(runtime_bundle, pictures, tmp_path, monkeypatch, capsys):
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(examples) == 5
    monkeypatch.chdir(tmp_path)
    runtime_bundle.save("model.emoe")
    Image.fromarray(pictures[0]).save("scene.png")
    Path("frames").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(f"frames/{number}.png")
    names: dict[str, object] = {"np": np}
    for example in examples:
        exec(example, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("(12, 16) ")
    assert lines[1].startswith("(12, 16) int16 ")
    assert lines[2].startswith("0 ") and lines[10].startswith("8 frames, 16 inferences, 0 failed")
    assert lines[11:13] == ["0 ['segmentation']", "1 ['depth']"] and lines[19] == "8"
    assert lines[21].startswith("1 it is 8x8 pixels, but the model takes 16x12") and lines[22].startswith("2 ")
