"""AcceleratorConfig: JSON round trip, what the hash covers, and every refusal's message."""

import dataclasses
import json

import pytest

from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig, ConfigError
from edgemoe_hw.spec.memories import slice_beats


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_json_round_trip(preset):
    assert AcceleratorConfig.from_json(preset.to_json()) == preset


def test_hash_covers_hardware_only():
    tiny = PRESETS["tiny"]
    same = dataclasses.replace(
        tiny, name="other", ultra_ram=True, dram_latency=7, assumed_clock_mhz=33.0, dram_gb_per_second=0.1
    )
    assert same.content_hash == tiny.content_hash
    assert dataclasses.replace(tiny, weight_depth=256).content_hash != tiny.content_hash
    assert dataclasses.replace(tiny, dsp_chain=4).content_hash != tiny.content_hash
    assert f"{tiny.hash32:08x}" == tiny.content_hash[:8]


def test_dram_bytes_per_cycle():
    """As many as the ports take, unless the DRAM is slower; it does not follow the clock."""
    ports = AcceleratorConfig(lanes_k=16, axi_masters=2, axi_bytes=8, assumed_clock_mhz=100)
    assert ports.port_bytes_per_cycle == ports.dram_bytes_per_cycle == 16
    slow = dataclasses.replace(ports, dram_gb_per_second=1.575)
    assert slow.dram_bytes_per_cycle == 15.75 and slow.port_bytes_per_cycle == 16
    assert dataclasses.replace(slow, assumed_clock_mhz=150).dram_bytes_per_cycle == 10.5
    assert dataclasses.replace(slow, assumed_clock_mhz=50).dram_bytes_per_cycle == 16
    assert AcceleratorConfig.from_json(slow.to_json()) == slow


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lanes_k": 12}, "lanes_k must be a power of two, not 12"),
        ({"lanes_k": 4, "epilogue_lanes": 4}, "lanes_k must be at least 8, not 4"),
        ({"epilogue_lanes": 16, "lanes_n": 16}, r"epilogue_lanes must divide lanes_k \(8\), not 16"),
        ({"lanes_n": 12}, r"epilogue_lanes must divide lanes_n \(12\), not 8"),
        ({"norm_lanes": 3}, r"norm_lanes must divide epilogue_lanes \(8\), not 3"),
        ({"dsp_chain": 3}, "dsp_chain must be 1, 2 or 4, not 3"),
        ({"dsp_chain": 8}, "dsp_chain must be 1, 2 or 4, not 8"),
        ({"axi_bytes": 4}, "axi_bytes must be 8 or 16, not 4"),
        ({"axi_masters": 3}, "axi_masters must be 1, 2 or 4, not 3"),
        ({"axi_bytes": 16}, r"lanes_k must be a multiple of axi_bytes \(16\), not 8"),
        (
            {"axi_masters": 4, "lanes_n": 6, "epilogue_lanes": 2},
            r"lanes_n must be a multiple of axi_masters \(4\), not 6",
        ),
        (
            {"lanes_k": 16, "epilogue_lanes": 4, "norm_lanes": 2, "axi_bytes": 16},
            r"2 \* epilogue_lanes must be a multiple of axi_bytes \(16\), not 8",
        ),
        ({"norm_lanes": 1, "axi_bytes": 16, "lanes_k": 16}, "8 . norm_lanes must be a multiple of axi_bytes"),
        ({"lanes_k": 512}, "lanes_k must be at most 256, not 512"),
        ({"lanes_n": 264}, "lanes_n must be at most 256, not 264"),
        ({"lanes_k": 64, "lanes_n": 40}, r"must be at most 256 \* axi_masters \* axi_bytes \(2048\), not 2560"),
        ({"max_tokens": 1025}, "max_tokens must be at most 1024, not 1025"),
        ({"max_dim": 2048}, "max_dim must be at most 1024, not 2048"),
        ({"max_experts": 33}, "max_experts must be at most 32, not 33"),
        ({"max_top_k": 5}, "max_top_k must be at most 4, not 5"),
        ({"weight_depth": 0}, "weight_depth must be a positive integer, not 0"),
        ({"weight_depth": True}, "weight_depth must be a positive integer, not True"),
        ({"act_depth": 1 << 17}, "act_depth must be at most 65536, not 131072"),
        ({"assumed_clock_mhz": "fast"}, "assumed_clock_mhz must be a positive number up to 10000, not 'fast'"),
        ({"assumed_clock_mhz": float("nan")}, "assumed_clock_mhz must be a positive number up to 10000, not nan"),
        ({"assumed_clock_mhz": 10**400}, "assumed_clock_mhz must be a positive number up to 10000, not 1000"),
        (
            {"dram_gb_per_second": "fast"},
            "dram_gb_per_second must be a positive number up to 10000 or null, not 'fast'",
        ),
        ({"dram_gb_per_second": 0}, "dram_gb_per_second must be a positive number up to 10000 or null, not 0"),
        ({"dram_gb_per_second": True}, "dram_gb_per_second must be a positive number up to 10000 or null, not True"),
        ({"dram_gb_per_second": float("nan")}, "dram_gb_per_second must be a positive number"),
        ({"lanes_k": 1 << 40}, "lanes_k must be at most 256, not 1099511627776"),
        ({"lanes_n": 1 << 40}, "lanes_n must be at most 256, not 1099511627776"),
        ({"dram_latency": 10**9}, "dram_latency must be at most 100000, not 1000000000"),
        ({"ultra_ram": 1}, "ultra_ram must be true or false, not 1"),
        ({"name": 3}, "name must be a string, not 3"),
        ({"name": "../x"}, "name must be letters, digits, '.', '_' and '-', 1 to 64, not '../x'"),
        ({"name": ""}, "name must be letters"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ConfigError, match=message):
        AcceleratorConfig(**change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config must be JSON"),
        ("[]", "config must be a JSON object"),
        ("[" * 100_000, "config must be JSON"),
        (json.dumps({"lanes": 8}), "config has unknown fields lanes; known: act_depth"),
    ],
)
def test_json_refusals(text, message):
    with pytest.raises(ConfigError, match=message):
        AcceleratorConfig.from_json(text)


@pytest.mark.parametrize(
    ("shape", "masters"),
    [
        ({"lanes_k": 32, "lanes_n": 48, "epilogue_lanes": 16, "axi_masters": 4}, (4, 2, 2, 4)),
        ({"lanes_k": 16, "lanes_n": 24, "epilogue_lanes": 8, "axi_masters": 2}, (2, 1, 1, 2)),
        ({"lanes_k": 16, "lanes_n": 24, "epilogue_lanes": 8, "axi_masters": 2, "axi_bytes": 8}, (2, 2, 2, 2)),
        ({"lanes_k": 64, "lanes_n": 64, "epilogue_lanes": 32, "axi_masters": 4}, (4, 4, 4, 4)),
    ],
)
def test_masters_of_a_memory(shape, masters):
    """As many as a row has beats; of weights all."""
    config = AcceleratorConfig(**{"axi_bytes": 16} | shape)
    assert tuple(config.load_masters(name) for name in ("WEIGHT", "ACT", "RESIDUAL", "PARAM")) == masters
    assert config.load_masters("NORM") == config.load_masters("ACTIVATION") == 1
    assert all(
        config.row_bytes[memory.name] == count * config.axi_bytes * config.load_masters(memory.name)
        for memory, count in slice_beats(config).items()
    )
