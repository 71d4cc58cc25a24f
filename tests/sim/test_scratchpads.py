# amaranth: UnusedElaboratable=no
"""The command-level model has the memories that the RTL has, for every configuration."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgemoe_hw.engines.norm.unit import LayerNormUnit
from edgemoe_hw.spec.config import AcceleratorConfig, ConfigError
from edgemoe_hw.spec.isa import Memory
from edgemoe_hw.spec.memories import memory_depths
from edgemoe_sim.scratchpads import Scratchpads


@st.composite
def configs(draw):
    """Any configuration that is allowed."""
    lanes = st.sampled_from([1, 2, 4, 8, 16, 32])
    values = {
        "lanes_k": draw(st.sampled_from([8, 16, 32, 64])),
        "lanes_n": 2 * draw(st.integers(1, 32)),
        "epilogue_lanes": draw(lanes),
        "norm_lanes": draw(lanes),
        "max_dim": draw(st.integers(1, 1024)),
        "max_tokens": draw(st.integers(1, 1024)),
        "weight_depth": draw(st.integers(1, 64)),
        "act_depth": draw(st.integers(1, 64)),
        "residual_depth": draw(st.integers(1, 64)),
        "score_depth": draw(st.integers(1, 64)),
        "param_depth": draw(st.integers(1, 64)),
        "axi_masters": draw(st.sampled_from([1, 2, 4])),
        "axi_bytes": draw(st.sampled_from([8, 16])),
    }
    try:
        return AcceleratorConfig(**values)
    except ConfigError:
        return AcceleratorConfig(**{"max_dim": values["max_dim"], "norm_lanes": draw(st.sampled_from([1, 2, 4, 8]))})


@given(configs())
def test_rows_and_bytes(config):
    """Every memory that a LOAD writes has the contract's rows, of the contract's bytes."""
    pads = Scratchpads(config)
    for memory, rows in memory_depths(config).items():
        pad = getattr(pads, memory.name.lower())
        assert len(pad) == rows and pad[0].nbytes == config.row_bytes[memory.name], memory
    assert pads.score.shape == (config.score_depth, config.lanes_k) and len(pads.row_max) == config.max_tokens
    longest = -(-config.max_dim // config.norm_lanes)  # rows of the largest LayerNorm, of which two sets fit
    assert len(pads.norm) >= 2 * longest and len(np.concatenate(pads.activation)) == 512


@given(configs())
def test_the_layernorm_unit_has_these_rows(config):
    """Also where ``max_dim`` is no multiple of the lanes, which once gave the model fewer."""
    assert LayerNormUnit(config).param_depth == memory_depths(config)[Memory.NORM]
