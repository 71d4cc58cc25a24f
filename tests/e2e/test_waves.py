"""Waveforms of a chosen range of commands, on the smallest accelerator: four lanes, one LayerNorm element a cycle."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemoe.bundle import Bundle
from edgemoe.compiler import build_bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.verify import open_verified
from edgemoe.runtime.waves import Waves
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import TaskConfig
from support.random_graphs import random_graph, small_model
from support.reference import expect

CONFIG = AcceleratorConfig(
    name="smallest",
    lanes_k=8,
    lanes_n=4,
    epilogue_lanes=4,
    norm_lanes=1,
    weight_depth=192,
    act_depth=512,
    residual_depth=192,
    score_depth=96,
    param_depth=96,
    max_dim=40,
    max_tokens=16,
    max_experts=4,
    max_top_k=2,
)
MODEL = small_model(
    image_height=8,
    image_width=8,
    dim=20,
    mlp_hidden=17,
    num_experts=3,
    expert_hidden=9,
    tasks=(TaskConfig("depth", "depth", channels=1, cells=2),),
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return build_bundle(random_graph(MODEL), CONFIG)


def record(bundle: Bundle, waves: Waves) -> tuple[list[int], int]:
    """Half cycles in the file, in order, and the inference's cycles; the outputs stay right."""
    image = np.random.default_rng(3).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    with open_verified(bundle, quiet=True, waves=waves) as verifier:
        result = verifier.run(image, "depth")
        size = waves.path.stat().st_size
        verifier.run(image, "depth")  # is not recorded
        assert waves.path.stat().st_size == size
    np.testing.assert_array_equal(result.outputs, expect(bundle, image, "depth").outputs)
    text = waves.path.read_text()
    assert "$enddefinitions" in text and re.search(r"\$var wire +\d+ \S+ m0_axi_araddr ", text)
    return [int(line[1:]) for line in text.splitlines() if line.startswith("#")], result.stats["cycles"]


def test_a_range_of_commands(bundle, tmp_path):
    times, cycles = record(bundle, Waves(tmp_path / "all.vcd"))
    assert times[-1] - times[0] >= 2 * cycles - 2 and times == sorted(times)
    last = bundle.task("depth").commands - 1
    first_part, _ = record(bundle, Waves(tmp_path / "first.vcd", 0, last // 2))
    second_part, _ = record(bundle, Waves(tmp_path / "second.vcd", last // 2))
    middle, _ = record(bundle, Waves(tmp_path / "middle.vcd", last // 2, last // 2))
    end, _ = record(bundle, Waves(tmp_path / "end.vcd", last))
    assert first_part[0] == times[0] and first_part[-1] < times[-1] and times[0] < second_part[0]
    assert second_part[0] == middle[0] < middle[-1] == first_part[-1]
    assert 1 < len(end) < len(times) / 4 and abs(end[-1] - times[-1]) <= 4  # a stop more costs a cycle


def test_command_line(edgemoe, bundle, tmp_path):
    bundle.save(tmp_path / "x.emoe")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png")
    arguments = [
        tmp_path / "x.emoe",
        tmp_path / "x.png",
        "--device",
        "sim",
        "--out",
        tmp_path / "out",
        "--trace",
        "--waves",
        tmp_path / "x.vcd",
        "--waves-from",
        20,
        "--waves-to",
        30,
    ]
    done = edgemoe("run", *arguments)
    assert done.code == 0 and "--waves-limit" not in done.err
    assert (tmp_path / "x.vcd").stat().st_size > 10_000
    done = edgemoe("run", *arguments[:-4], "--waves-limit", 0.001)
    told = " ".join(done.err.split())
    assert done.code == 0
    assert "x.vcd ends within the inference: it has reached 0.001 GB; choose a part with --waves-from and" in told
    assert 1e6 <= (tmp_path / "x.vcd").stat().st_size < 2e6


def test_a_file_that_has_reached_its_limit(bundle, tmp_path):
    """It ends soon after, and the inference goes on as if nothing had been."""
    whole, cycles = record(bundle, Waves(tmp_path / "whole.vcd"))
    cut, same = record(bundle, Waves(tmp_path / "cut.vcd", limit=500_000))
    assert same == cycles and cut == whole[: len(cut)] and len(cut) < len(whole) / 2
    assert 500_000 <= (tmp_path / "cut.vcd").stat().st_size < 1_000_000


@pytest.mark.parametrize(("first", "last"), [(5, 4), (-1, None), (0, 100_000), (100_000, None)])
def test_ranges_that_do_not_exist(bundle, tmp_path, first, last):
    with pytest.raises(ValueError, match="waves must be of commands 0 to "):
        open_verified(bundle, waves=Waves(tmp_path / "x.vcd", first, last))  # before anything is built
    assert not (tmp_path / "x.vcd").exists()


def test_file_that_cannot_be_written(bundle):
    with open_verified(bundle, quiet=True, waves=Waves(Path("/none/x.vcd"))) as verifier:
        with pytest.raises(DeviceError, match="cannot write waveforms to /none/x.vcd"):
            verifier.run(np.zeros((8, 8, 3), np.uint8), "depth")
