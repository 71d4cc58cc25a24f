"""The examples of docs/runtime.md run as they are written."""

import re
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

from edgemoe_models.random_weights import random_state
from support.random_graphs import small_model

from .conftest import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"


def test_examples(runtime_bundle, pictures, tmp_path, monkeypatch, capsys):
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(examples) == 8
    monkeypatch.chdir(tmp_path)
    runtime_bundle.save("model.emoe")
    Image.fromarray(pictures[0]).save("scene.png")
    Path("frames").mkdir()
    model = small_model(tasks=KINDS)
    safetensors.numpy.save_file(random_state(model, 0), "float.safetensors", {"config": model.to_json()})
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(f"frames/{number}.png")
    names: dict[str, object] = {"np": np}
    for example in examples:
        exec(example, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("(12, 16) ") and int(lines[1]) > 0
    assert lines[2] == "small for tiny" and lines[3].startswith("(12, 16) int16 ")
    assert lines[4:6] == ["['segmentation', 'depth'] 1", "2"]
    assert lines[6].startswith("0 ") and lines[14].startswith("8 frames, 16 inferences, 0 failed")
    assert lines[15:17] == ["0 ['segmentation']", "1 ['depth']"] and lines[23] == "8"
    assert lines[25].startswith("1 it is 8x8 pixels, but the model takes 16x12") and lines[26].startswith("2 ")
