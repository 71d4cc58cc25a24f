"""The explorer's models against what RTL and Yosys said, its space, its search, and the nearest configuration."""

import dataclasses
import json

import explorer_record
import pytest

from edgemoe.boards.board import board_names, load_board
from edgemoe.boards.synth import RESOURCES
from edgemoe.compiler.errors import CompileError
from edgemoe.compiler.fits import fits
from edgemoe.explorer import resources
from edgemoe.explorer.calibration import fit, relative_errors
from edgemoe.explorer.clock import clock_of, clock_text
from edgemoe.explorer.cycles import Workload, estimated_cycles, floor_cycles, workload
from edgemoe.explorer.needs import changes, deep_enough, least_depths, nearest
from edgemoe.explorer.search import TOLERANCE, Point, choose, front, search
from edgemoe.explorer.space import candidates, norm_lanes
from edgemoe.explorer.terms import PARTS, terms
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_models.config import PRESETS as MODELS
from edgemoe_models.config import ModelConfig, TaskConfig
from support.random_graphs import small_model

RECORD = explorer_record.load()
RUNS = explorer_record.runs_of(RECORD)
CLASSIFIER = (TaskConfig("classification", "classification", 1000),)


def vit(name: str, dim: int, size: int = 224) -> ModelConfig:
    """One block: what fits does not depend on how many there are."""
    return ModelConfig(name, size, size, 16, dim, 1, dim // 64, 4 * dim, 0, 0, 0, CLASSIFIER)


@pytest.fixture(scope="module")
def small() -> Workload:
    return Workload("small", small_model())


# --- resources -------------------------------------------------------------------------------------------------------


def test_resources_are_within_a_tenth_of_yosys():
    """Every run of the record."""
    assert len({run.config.content_hash for run in RUNS}) >= 12
    assert len({run.board for run in RUNS}) >= 4
    for run, errors in zip(RUNS, relative_errors(RUNS, resources.fitted().coefficients), strict=True):
        assert max(map(abs, errors.values())) < 0.1, (run.board, run.config.name, errors)
        assert errors["dsp"] == 0 and errors.get("uram", 0) == 0  # counted, not fitted


def test_runs_that_the_model_has_not_seen():
    """Of each run by a model of the others: what a new configuration must expect."""
    left_out = [row["left_out"] for row in RECORD["errors"]["rows"]]
    assert max(abs(row[resource]) for row in left_out for resource in RESOURCES if resource in row) < 0.1


def test_the_package_has_what_follows_from_the_record():
    assert resources.COEFFICIENTS.read_text(encoding="utf-8") == explorer_record.coefficients_text(RECORD)


def test_the_page_has_the_tables_of_the_record():
    page = explorer_record.PAGE.read_text(encoding="utf-8")
    assert explorer_record.with_tables(page, RECORD) == page


def test_a_fit_finds_what_made_the_runs():
    """Coefficients of a made-up machine, from totals and units."""
    wanted = {part: {name: 3.0 + index for index, name in enumerate(names)} for part, names in PARTS.items()}
    runs = []
    for run in RUNS:
        values = terms(run.config)
        units = {
            unit: {kind: sum(wanted[part][name] * values[name] for name in PARTS[part]) for kind in resources.FITTED}
            for unit, part in (("compute.operands", "array"), ("compute.norm", "norm"))
        }
        everything = sum(wanted[part][name] * values[name] for part, names in PARTS.items() for name in names)
        units["control"] = {kind: everything - sum(unit[kind] for unit in units.values()) for kind in resources.FITTED}
        runs.append(dataclasses.replace(run, used={**run.used, "lut": everything, "ff": everything}, units={}))
    found = relative_errors(runs, fit(runs))
    assert max(abs(errors["ff"]) for errors in found) < 0.01


def test_nothing_is_known_of_another_family():
    with pytest.raises(ValueError, match="no resources are known for family 'ecp5'; known: xc7, xcup"):
        resources.estimate(PRESETS["tiny"], "ecp5")


def test_what_is_over_is_named():
    board = load_board("pynq-z2")
    found = resources.estimate(dataclasses.replace(board.config, lanes_n=48), board.device.family)
    assert resources.over(found, board.device) == [
        "dsp 410 of 220 (100% allowed)",
        "bram36 185 of 140 (100% allowed)",
    ]
    assert resources.share(found, board.device) == pytest.approx(410 / 220)
    assert resources.share({**found, "uram": 1}, board.device) == float("inf")


# --- cycles ----------------------------------------------------------------------------------------------------------


def test_cycles_are_within_a_twentieth_of_the_rtl():
    """The issue's target; zcu102's memory-bound rows are further off, as docs/explorer.md says."""
    rows = RECORD["cycles"]
    good = [row for row in rows if abs(row["error"]) <= 0.05]
    assert len(good) >= 12 and len({row["board"] for row in good}) >= 4
    assert {(row["board"], row["model"]) for row in rows if row not in good} <= {("zcu102", "m3vit-tiny")}
    assert max(abs(row["error"]) for row in rows) < 0.08


@pytest.mark.parametrize("lanes_n", [8, 24, 64])
def test_no_estimate_is_below_the_floor(lanes_n, small, tmp_path):
    config = deep_enough(dataclasses.replace(PRESETS["tiny"], lanes_n=lanes_n), [small.shape])
    estimate = estimated_cycles(small, config, tmp_path)
    assert floor_cycles(small, config) <= estimate
    assert estimated_cycles(small, config, tmp_path) == estimate and len(list(tmp_path.iterdir())) == 1
    next(tmp_path.iterdir()).write_text("torn")
    assert estimated_cycles(small, config, tmp_path) == estimate


def test_workloads(tmp_path):
    assert workload("m3vit-tiny", 4) == Workload("m3vit-tiny", MODELS["m3vit-tiny"], 4)
    assert workload("m3vit-micro-w4a8").expert_bits == 4
    assert [task.name for task in workload("m3vit-tiny").first_task.tasks] == ["segmentation"]
    with pytest.raises(ValueError, match="model must be one of .*, or a checkpoint or graph file, not 'nothing'"):
        workload("nothing")


# --- the space, and what fits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["pynq-z2", "kv260"])
@pytest.mark.parametrize("depths", ["least", "preset"])
def test_candidates_take_the_model(board, depths):
    shape = small_model()
    found = list(candidates(load_board(board), [shape], depths))
    assert len({config.content_hash for config in found}) == len(found) > 50
    own = load_board(board).config
    assert (own.lanes_k, own.lanes_n, own.epilogue_lanes) in {(c.lanes_k, c.lanes_n, c.epilogue_lanes) for c in found}
    for config in found[::15]:
        assert fits(shape, config) == []
        assert config.axi_masters == own.axi_masters and config.ultra_ram == own.ultra_ram


def test_depths_have_two_names():
    with pytest.raises(ValueError, match="depths must be least or preset, not 'deep'"):
        next(candidates(load_board("pynq-z2"), [MODELS["m3vit-micro"]], "deep"))


@pytest.mark.parametrize("board", ["pynq-z2", "aup-zu3", "kv260", "zcu102"])
def test_layernorm_has_the_lanes_that_the_boards_own_have(board):
    config = load_board(board).config
    found = norm_lanes(config.macs_per_cycle, config.epilogue_lanes, config.axi_bytes, [MODELS["m3vit-tiny"]])
    assert found == config.norm_lanes


def test_nothing_changes_where_the_model_fits():
    board = load_board("pynq-z2")
    assert nearest(board.config, [small_model()], board) == board.config


def test_the_nearest_has_deeper_memories_or_a_smaller_array():
    board, model = load_board("pynq-z2"), vit("vit-small", 384)
    found = nearest(board.config, [model], board)
    assert fits(model, found) == []
    assert not resources.over(resources.estimate(found, board.device.family), board.device)
    changed = {change.field: change for change in changes(board.config, found, [model])}
    assert changed["max_dim"].after >= 384 and "vit-small has dim 384" in changed["max_dim"].why
    large = load_board("zcu102")
    deeper = nearest(large.config, [vit("vit-base", 768)], large)
    assert (deeper.lanes_k, deeper.lanes_n) == (64, 64)
    assert {change.field for change in changes(large.config, deeper, [vit("vit-base", 768)])} == {
        "max_dim",
        "residual_depth",
    }


def test_what_no_configuration_takes():
    board = load_board("pynq-z2")
    with pytest.raises(CompileError, match="takes vit-huge on pynq-z2: .*no configuration allows more than 1024"):
        nearest(board.config, [vit("vit-huge", 1280)], board)
    with pytest.raises(CompileError, match="takes vit-base-384 on pynq-z2: "):
        nearest(board.config, [vit("vit-base-384", 768, 384)], board)


def test_least_depths_are_whole_blocks():
    config = least_depths(PRESETS["pynq-z2"], [MODELS["m3vit-tiny"]])
    assert config.act_depth % 512 == config.residual_depth % 512 == config.score_depth % 512 == 0
    assert config.max_tokens == 129 and config.act_depth < PRESETS["pynq-z2"].act_depth


# --- the search ------------------------------------------------------------------------------------------------------


def point(ms: float, share: float, lut: int = 1) -> Point:
    return Point(AcceleratorConfig(), {"lut": lut}, share, {}, {}, ms)


def test_the_front_has_what_nothing_beats():
    points = [point(1, 0.9), point(2, 0.5), point(3, 0.6), point(4, 0.2), point(1, 0.95), point(5, 0.9, 0)]
    assert [(p.score, p.share) for p in front(points)] == [(1, 0.9), (2, 0.5), (4, 0.2), (5, 0.9)]


def test_of_equally_fast_ones_the_one_with_the_fewest_luts_is_chosen():
    points = [point(1, 0.9, 30), point(1 + TOLERANCE / 2, 0.8, 20), point(1.5, 0.3, 10)]
    assert choose(points) is points[1]


def test_a_search(small):
    board = load_board("pynq-z2")
    steps = []
    found = search(board, [small], on_step=lambda done, of: steps.append((done, of)))
    assert found.chosen in found.front and len(found.front) <= found.judged <= found.fitting < found.legal
    assert [p.score for p in found.front] == sorted(p.score for p in found.front)
    assert front(found.front) == found.front
    assert all(not resources.over(p.resources, board.device) for p in found.front)
    assert steps[0] == (0, found.fitting)
    assert found.chosen.ms["small"] == pytest.approx(found.chosen.cycles["small"] / 142.86e3)


def test_a_model_that_no_board_takes():
    load = Workload("huge", vit("vit-base-384", 768, 384))
    with pytest.raises(CompileError, match="no configuration of pynq-z2 takes vit-base-384: of "):
        search(load_board("pynq-z2"), [load])


def test_clocks():
    found = clock_of(load_board("pynq-z2-large"))
    assert found == {"assumed_mhz": 142.86, "estimated_mhz": resources.fitted().clocks["pynq-z2"], "reached": True}
    assert clock_text(load_board("kv260")).endswith("own netlist gives 225.7: reached")


# --- what the boards have --------------------------------------------------------------------------------------------


#: With memories only as deep as the model needs, as docs/explorer.md says.
SLOWER = {"zcu102": 0.12, "zcu104": 0.045}


@pytest.mark.parametrize("row", RECORD["presets"], ids=lambda row: row["board"])
def test_the_boards_own_arrays_are_chosen(row):
    """By the search that ``tools/explorer_record.py --presets`` did."""
    names = ("lanes_k", "lanes_n", "epilogue_lanes", "axi_masters", "ultra_ram")
    config = load_board(row["board"]).config
    assert {name: row["chosen"][name] for name in names} == {name: getattr(config, name) for name in names}
    ratio = row["own"]["ms"] / row["chosen"]["ms"]
    assert 1 - SLOWER.get(row["board"], TOLERANCE) <= ratio <= 1 + TOLERANCE


def test_every_board_was_searched():
    assert {row["board"] for row in RECORD["presets"]} == set(board_names())


def test_the_record_is_json_without_names_of_this_machine():
    text = json.dumps(RECORD)
    assert "/tmp" not in text and "/home" not in text
