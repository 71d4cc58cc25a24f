"""What ``make dist`` tries in which environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dist_place import Place

__all__ = ["ENVIRONMENTS", "Environment", "Trial"]

ROOT = Path(__file__).parents[1]
BUNDLE = "m3vit-micro-w8a8-pynq-z2"  # by name: it is in the package


@dataclass(frozen=True)
class Trial:
    """One command and how it must end: a success, or a refusal in one line; never a traceback.

    Attributes:
        title: for the table
        command: program of the environment and its arguments
        shows: texts that must be in its output or messages
        refused: exit code 1 and one line
    """

    title: str
    command: tuple[str, ...]
    shows: tuple[str, ...] = ()
    refused: bool = False

    @property
    def expected(self) -> str:
        return "refused in one line" if self.refused else "works"


@dataclass(frozen=True)
class Environment:
    """What is installed, and what is tried then.

    Attributes:
        name: for the table
        extras: of the wheel
        trials: makes them, given the place and the wheel
        python: version of the interpreter; None: the one that runs this
    """

    name: str
    extras: tuple[str, ...]
    trials: Callable[[Place, Path], Iterator[Trial]]
    python: str | None = None


def _edgemoe(line: str, *shows: str, refused: bool = False) -> Trial:
    return Trial(f"edgemoe {line}", ("edgemoe", *line.split()), shows, refused)


def _python(title: str, code: str, *shows: str) -> Trial:
    return Trial(title, ("python", "-c", code), shows)


_PICTURES = """
from pathlib import Path
import numpy as np
from PIL import Image
Path("pictures").mkdir(exist_ok=True)
ramp = np.linspace(0, 255, 128).astype(np.uint8)
for number, name in enumerate(["scene.png", "pictures/a.png", "pictures/b.png"]):
    Image.fromarray(np.broadcast_to(np.roll(ramp, 9 * number)[None, :, None], (64, 128, 3)).copy()).save(name)
"""

# A plain ViT as timm names its tensors: 32 x 32 pixels, patch 8, width 64, one block, ten classes.
_CHECKPOINT = """
import numpy as np
from safetensors.numpy import save_file
draw = np.random.default_rng(0).standard_normal
shapes = {"cls_token": (1, 1, 64), "pos_embed": (1, 17, 64), "patch_embed.proj.weight": (64, 3, 8, 8)}
shapes |= {"patch_embed.proj.bias": (64,), "head.weight": (10, 64), "head.bias": (10,)}
for name, rows, columns in (("attn.qkv", 192, 64), ("attn.proj", 64, 64), ("mlp.fc1", 256, 64), ("mlp.fc2", 64, 256)):
    shapes |= {f"blocks.0.{name}.weight": (rows, columns), f"blocks.0.{name}.bias": (rows,)}
for name in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
    shapes |= {f"{name}.weight": (64,), f"{name}.bias": (64,)}
save_file({name: 0.1 * draw(shape).astype(np.float32) for name, shape in shapes.items()}, "vit.safetensors")
"""


def _base(place: Place, wheel: Path) -> Iterator[Trial]:
    """Every verb works or names the extra that it needs, with a command that installs it."""

    def lacks(line: str, extras: str) -> Trial:
        return _edgemoe(line, "needs", f"pip install '{wheel}[{extras}]'", refused=True)

    yield _python("(pictures)", _PICTURES)
    yield _python("(a checkpoint of timm's form)", _CHECKPOINT)
    tried = {
        "import": [
            _edgemoe("import vit.safetensors --out own.safetensors --heads 1 --image-height 32 --image-width 32")
        ],
        "quantize": [_edgemoe("quantize own.safetensors --out own.graph.safetensors --count 2")],
        "train": [lacks("train", "train")],
        "qat": [lacks("qat", "train")],
        "export": [lacks("export --task depth --out x.onnx", "onnx")],
        "compile": [
            _edgemoe("compile --model m3vit-micro-w8a8 --out m.emoe"),
            _edgemoe("compile --model own.graph.safetensors --config kv260 --out own.emoe"),
        ],
        "sim": [lacks("sim", "sim"), lacks("sim --config kv260", "sim")],
        "run": [
            _edgemoe(f"run {BUNDLE} scene.png pictures --out results", "depth"),
            lacks(f"run {BUNDLE} scene.png --device sim", "sim"),
            _edgemoe(f"run {BUNDLE} scene.png --device pynq", "PYNQ", refused=True),
        ],
        "demo": [lacks("demo", "demo")],
        "serve": [lacks(f"serve {BUNDLE}", "serve")],
        "selftest": [_edgemoe(f"selftest --bundle {BUNDLE} --device reference --images 1", "self-test passed")],
        "info": [_edgemoe(f"info {BUNDLE}"), _edgemoe("info own.emoe")],
        "disasm": [_edgemoe(f"disasm {BUNDLE} --task depth", "MATMUL")],
        "report": [_edgemoe("report nothing.json", "nothing.json", refused=True)],
        "bench": [lacks("bench", "sim")],
        "accuracy": [lacks("accuracy", "sim")],
        "ablation": [lacks("ablation", "sim")],
        "expert-load": [_edgemoe("expert-load --scenes 2 --out load")],
        "study": [_edgemoe(f"study overhead {BUNDLE} --frames 3")],
        "boards": [
            _edgemoe("boards", "pynq-z2", "zcu104"),
            _edgemoe("boards hwh kv260 --out handoff", "kv260.hwh"),
            _edgemoe("boards bitstream kv260", refused=True),
            _edgemoe("boards flash kv260 --host nobody@nowhere", "there is no bitstream of kv260", refused=True),
        ],
        "verilog": [lacks("verilog", "sim"), _edgemoe("verilog --config kv260 --json kv260.json")],
        "synth": [lacks("synth", "sim,synth")],
        "fit": [lacks("fit", "sim,synth,fit")],
    }
    _, verbs, _ = place.run(["python", "-c", "from edgemoe.cli.verbs import VERBS; print(*VERBS)"])
    for verb in verbs.split():
        yield from tried.pop(verb, [_edgemoe(f"{verb} --help", f"(nothing is tried for the verb {verb})")])
    yield _edgemoe("--version")
    if tried:
        yield _edgemoe("--help", *tried)  # a verb that is gone


def _oldest_and_newest(place: Place, wheel: Path) -> Iterator[Trial]:
    yield _python("(pictures)", _PICTURES)
    yield _edgemoe("compile --model m3vit-micro-w8a8 --config kv260 --out m.emoe")
    yield _edgemoe(f"run {BUNDLE} scene.png --out results", "depth")
    yield _edgemoe(f"selftest --bundle {BUNDLE} --device reference --images 1", "self-test passed")
    yield _edgemoe("boards", "pynq-z2")


def _readme_example() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^```py(?:thon)?\n(import edgemoe\n.*?)^```", text, re.M | re.S)
    assert found is not None, "README.md has no Python example"
    return found[1]


def _sim(place: Place, wheel: Path) -> Iterator[Trial]:
    exact = "equal the integer reference, bit for bit"
    yield _python("(pictures)", _PICTURES)
    yield _python("README's Python example", _readme_example(), "(64, 128)")
    yield _edgemoe("sim", exact)
    yield _edgemoe("sim --config kv260 --out kv260", exact)
    yield _edgemoe("report", exact)
    yield _edgemoe(f"run {BUNDLE} scene.png --device sim --task depth --out results", "depth")
    yield _edgemoe("verilog --config zcu104 --out zcu104.v")
    yield _python("(the file)", "print(open('zcu104.v').read()[:1000000].count('module edgemoe('))", "1")
    cached = "from pathlib import Path; print(*(p.name for p in (Path.home() / '.cache/edgemoe').iterdir()))"
    yield _python("caches lie where platformdirs says", cached, "verilator")


def _synth(place: Place, wheel: Path) -> Iterator[Trial]:
    yield _edgemoe("synth --config tiny --out synth", "lut")


def _demo(place: Place, wheel: Path) -> Iterator[Trial]:
    """The page and its files are served, and a frame comes."""
    yield _python(
        "edgemoe demo: page, files, first frame", (ROOT / "tools" / "dist_demo.py").read_text(), "frame shown"
    )


def _serve(place: Place, wheel: Path) -> Iterator[Trial]:
    """A bundle is served, and the device ``remote`` runs it."""
    yield _python("edgemoe serve, and its client", (ROOT / "tools" / "dist_serve.py").read_text(), "equal")


def _board(place: Place, wheel: Path) -> Iterator[Trial]:
    yield _python("import pynq", "import pynq, numpy; print(numpy.__version__)", "1.")
    yield _python("(pictures)", _PICTURES)
    yield _edgemoe(f"selftest --bundle {BUNDLE} --device reference --images 1", "self-test passed")
    yield _edgemoe(f"run {BUNDLE} scene.png --device pynq", "no overlay of configuration pynq-z2", refused=True)


_BOARD_PYTHON = "3.10"  # PYNQ 3's
ENVIRONMENTS = (
    Environment("base", (), _base),
    Environment("base-oldest", (), _oldest_and_newest, "3.10"),
    Environment("base-newest", (), _oldest_and_newest, "3.13"),
    Environment("sim", ("sim",), _sim),
    Environment("synth", ("sim", "synth"), _synth),
    Environment("demo", ("demo",), _demo),
    Environment("serve", ("serve",), _serve),
    Environment("board", ("board",), _board, _BOARD_PYTHON),
)
