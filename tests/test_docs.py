"""The documentation's links and figures: what a page states is computed again here."""

import json
import math
import re
from pathlib import Path

import gpu_baselines
import numpy as np
import pytest

from edgemoe.boards.board import configuration_names, load_board
from edgemoe.bundle import Joined
from edgemoe.compiler import build_bundle
from edgemoe.compiler.bound import Bound, phase_bounds, total_bound
from edgemoe.compiler.fits import fits, shortages
from edgemoe_hw.spec.config import PRESETS as CONFIGS
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.memories import memory_depths
from edgemoe_models.arithmetic import ops, tables
from edgemoe_models.config import PRESETS as MODELS
from edgemoe_models.config import ModelConfig, TaskConfig
from support.doc_blocks import run_blocks
from support.random_graphs import random_graph

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")


def prose(page: Path) -> str:
    """A page without code and comments."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target, fragment in _LINK.findall(prose(page)):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target}"
        if fragment:
            anchors = {anchor(heading) for heading in _HEADING.findall(path.read_text(encoding="utf-8"))}
            assert fragment[1:] in anchors, f"{page.name}: {target}{fragment}"


def test_every_page_is_on_the_site():
    listed = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2], re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_decision_is_listed():
    pages = {page.name for page in (DOCS / "decisions").glob("0*.md")}
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    assert pages and {name for name in pages if f"({name})" in index} == pages


def table_rows(text: str) -> dict[str, list[float]]:
    """Rows of all tables by their first cell: the numbers of the other cells."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip(" *") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) > 1:
            rows[cells[0]] = [float(c.replace(",", "")) for c in cells[1:] if re.fullmatch(r"[\d,]+(\.\d+)?", c)]
    return rows


def test_worked_bounds():
    """docs/architecture.md, section 11: m3vit-tiny, segmentation, all experts used."""
    model = MODELS["m3vit-tiny"]
    graph = random_graph(model)
    expected: dict[str, list[float]] = {}
    for name in ("pynq-z2", "zcu102"):
        config = CONFIGS[name]
        phases = build_bundle(graph, config).task("segmentation").phases
        used = {phase.name: model.num_experts for phase in phases if phase.expert_macs}
        bounds = phase_bounds(config, phases, model.num_tokens * model.top_k, used)
        sums = Bound("ideal", sum(b.macs for b in bounds), sum(b.bytes for b in bounds), 0, 0)
        for kind, bound in {b.name.rsplit(".", 1)[-1]: b for b in [*bounds, sums]}.items():
            row = expected.setdefault(kind, [bound.macs, bound.bytes])
            row += [round(bound.macs / config.macs_per_cycle), round(bound.bytes / config.dram_bytes_per_cycle)]
        expected.setdefault("bound", []).append(round(total_bound(config, bounds)[0]))
    rows = table_rows((DOCS / "architecture.md").read_text(encoding="utf-8"))
    found = {
        kind: next(row for cell, row in rows.items() if cell.split(" ")[0] == kind and len(row) == len(values))
        for kind, values in expected.items()
    }
    assert found == expected


@pytest.mark.parametrize(("column", "config"), [(0, CONFIGS["pynq-z2"]), (1, CONFIGS["zcu102"])])
def test_memory_sizes(column, config):
    """docs/architecture.md, section 4."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    depths = {memory.name: depth for memory, depth in memory_depths(config).items()} | {"SCORE": config.score_depth}
    widths = config.row_bytes | {"SCORE": config.lanes_k * 12 // 8}
    for name in ("WEIGHT", "ACT", "RESIDUAL", "SCORE", "PARAM", "NORM"):
        found = re.search(rf"^\| {name} \|.*\| (.*) \| (.*) \|$", text, re.MULTILINE)
        kibibytes = depths[name] * widths[name] // 1024
        assert found and found[1 + column] == f"{depths[name]} rows, {kibibytes} KiB", name


def test_what_fits_which_board():
    """docs/boards.md: every board, and the usual sizes of ViT."""

    def vit(dim: int, height: int = 224, width: int = 224, patch: int = 16) -> ModelConfig:
        task = TaskConfig("classification", "classification", channels=1000)
        return ModelConfig("vit", height, width, patch, dim, 12, dim // 64, 4 * dim, 0, 0, 0, (task,))

    columns = [
        *(MODELS["m3vit-tiny"], vit(192), vit(192, 256, 256), vit(192, 240, 320), vit(192, 384, 384)),
        *(vit(384), vit(384, patch=14), vit(384, 384, 384), vit(768), vit(768, patch=14)),
    ]
    table = (DOCS / "boards.md").read_text(encoding="utf-8").partition("## What fits")[2].partition("\n##")[0]
    found = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found |= {name: cells[1:] for name in re.findall(r"`([\w-]+)`", cells[0]) if line.startswith("| `")}
    expected = {}
    for name in configuration_names():
        config = load_board(name).config
        answers = ["no" if fits(model, config) else "yes" for model in columns]
        expected[name] = [str(config.max_tokens), str(config.max_dim), *answers]
    assert found == expected


def test_how_many_sequences_fit():
    """docs/boards.md: the programs of several tasks or images of each board."""

    def most(model: ModelConfig, config: AcceleratorConfig, joined: list[Joined]) -> int:
        return sum(not shortages(model, config, joined=each) for each in joined)  # what is larger needs more

    page = (DOCS / "boards.md").read_text(encoding="utf-8").partition("### Several tasks or images")[2]
    lines = re.findall(r"^\| `(\S+)` \| (.*) \|$", page.partition("\n## ")[0], re.M)
    found = {name: [int(cell) for cell in cells.split("|")] for name, cells in lines}
    for name in configuration_names():
        config, expected = load_board(name).config, []
        for model in (MODELS["m3vit-micro"], MODELS["m3vit-tiny"]):
            tasks = tuple(task.name for task in model.tasks)
            expected.append(most(model, config, [Joined(tasks[: n + 1]) for n in range(len(tasks))]))
        for model in (MODELS["m3vit-micro"], MODELS["m3vit-tiny"], MODELS["deit-tiny"]):
            expected.append(most(model, config, [Joined((model.tasks[0].name,), n) for n in range(1, 9)]))
        assert found[name] == expected, name


def test_reciprocal_square_root_error():
    """docs/decisions/0003: at most 2^-10."""
    u = np.arange(1 << 14, 1 << 16)
    error = np.abs(tables.RSQRT[u >> 6] * np.sqrt(u) / 2.0**23 - 1)
    assert error.max() <= 2.0**-10
    assert math.sqrt(np.square(error).mean()) < 2.0**-11.7


def test_reciprocal_error():
    """docs/decisions/0002: at most 2^-10.9, for every sum that can occur."""
    n = np.arange(1, 1 << 18)
    row, shift = ops.reciprocal(n)
    assert np.abs(row / 2.0 ** (15 + shift) * n - 1).max() < 2.0**-10.9


@pytest.mark.parametrize("unit", [0.00822, 0.01, 0.0164, 0.033, 0.1, 0.3])
@pytest.mark.parametrize("shift", range(4))
def test_gelu_error(unit, shift):
    """docs/decisions/0008: 1/2 + 2^-(g+1) LSB of the exact function of the 12-bit input (1/2 for g = 0)."""
    table = tables.activation_table("gelu", unit)
    q = np.arange(-2047, 2048)
    exact = q / 2 * np.array([math.erfc(-value * unit / math.sqrt(2)) for value in q])
    found = ops.activate(q, table, shift) + 128 - int(table[-1]) / 2**shift
    lowest, highest = (end + 128 - int(table[-1]) / 2**shift for end in (-127, 127))
    limited = np.clip(exact / 2**shift, lowest, highest)
    assert np.abs(found - limited).max() <= (0.5 + 0.5 / 2**shift if shift else 0.5) + 1e-9


def test_softmax_error():
    """docs/decisions/0002: probabilities of 129 keys sum to 1 within 0.06 %."""
    scores = np.random.default_rng(0).normal(0, 2 * 64 * math.log2(math.e), (2000, 129)).round().astype(np.int64)
    p, _ = ops.softmax_probabilities(np.clip(scores, -2047, 2047), 0)
    row, shift = ops.reciprocal(p.sum(-1))
    assert np.abs(p.sum(-1) * row / 2.0 ** (15 + shift) - 1).max() < 6e-4


def test_gpu_table_is_the_measured_one():
    result = json.loads((ROOT / "docs" / "measurements" / "gpu_baselines-h100.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = page.partition("<!-- gpu table -->\n")[2].partition("\n<!-- end of gpu table -->")[0]
    assert table == gpu_baselines.markdown(result)
    assert not [row for row in result["rows"] if row.get("equal") is False]


def test_how_to_add_an_operator():
    """The page's own assertions: hard swish's error is that of GELU."""
    run_blocks("howto/add-an-operator.md")
