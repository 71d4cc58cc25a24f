"""docs/quickstart.md is walked from top to bottom: its Python, and its commands but those that need a build."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from edgemoe.bundle import Bundle
from edgemoe.cli.main import run
from edgemoe.packaged_bundles import find_bundle
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from support.doc_blocks import DOCS

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Minutes of Verilator, or Yosys; tests/test_docs_names.py parses them.
_LEFT_OUT = re.compile(r"make |edgemoe sim |edgemoe synth |edgemoe run .*--device sim ")


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which the page was followed, and the commands that were run."""
    folder = tmp_path_factory.mktemp("quickstart")
    namespace: dict[str, object] = {}
    done = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for language, content in _BLOCK.findall((DOCS / "quickstart.md").read_text(encoding="utf-8")):
            if language == "python":
                exec(compile(content, "quickstart.md", "exec"), namespace)
            elif not language:
                for line in content.splitlines():
                    if not _LEFT_OUT.match(line):
                        words = shlex.split(line, comments=True)
                        assert words[0] == "edgemoe" and run(words[1:]) == 0, line
                        done.append(words[1])
    return folder / "build", done


def test_every_step_is_there(walked):
    _, done = walked
    assert done == [
        *("info", "run"),
        *("verilog", "compile", "verilog"),
        *("import", "quantize", "compile", "run"),
        "disasm",
    ]


def test_own_pictures_become_predictions(walked):
    build, _ = walked
    for task in Bundle.load(find_bundle("m3vit-micro-w8a8-pynq-z2")).tasks:
        assert len(list((build / "run").glob(f"*-{task}.png"))) == 12
    with Image.open(build / "run" / "00-depth.png") as picture:
        assert picture.width > 0


def test_own_configuration_is_used(walked):
    build, _ = walked
    config = AcceleratorConfig.from_json((build / "narrow.json").read_text(encoding="utf-8"))
    assert config.lanes_n == 16 != PRESETS["pynq-z2"].lanes_n
    assert Bundle.load(build / "narrow.emoe").config == config
    assert "module edgemoe(" in (build / "narrow.v").read_text(encoding="utf-8")


def test_own_model_runs(walked):
    build, _ = walked
    model = Bundle.load(build / "my-vit.emoe").model
    assert (model.name, model.dim, model.depth, model.num_experts) == ("my-vit", 64, 2, 0)
    raw = [np.load(path) for path in sorted((build / "my-vit").glob("*.npy"))]
    assert len(raw) == 12 and all(values.size == 10 for values in raw)
    assert any((raw[0] != other).any() for other in raw[1:])  # the pictures matter
