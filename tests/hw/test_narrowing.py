# amaranth: UnusedElaboratable=no
"""No bit is lost without a word: every cut of a value is a slice, and every field holds what a configuration allows."""

import dataclasses
import inspect

import pytest
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_hw.top import Accelerator
from support.narrowing import narrowings

LARGEST = {"max_dim": 1024, "max_tokens": 1024, "max_experts": 32, "max_top_k": 4}
DEEPEST = dict.fromkeys(("weight_depth", "act_depth", "residual_depth", "score_depth", "param_depth"), 65536)
CONFIGS = {
    **PRESETS,
    "largest": dataclasses.replace(PRESETS["tiny"], **LARGEST, **DEEPEST),
    "many groups a row": AcceleratorConfig(
        lanes_k=64, lanes_n=32, epilogue_lanes=4, norm_lanes=1, **LARGEST, **DEEPEST
    ),
    "long rows": AcceleratorConfig(lanes_k=256, lanes_n=8, epilogue_lanes=8, dsp_chain=1, norm_lanes=8, **LARGEST),
    "wide tiles": AcceleratorConfig(lanes_k=8, lanes_n=256, epilogue_lanes=4, norm_lanes=4, **LARGEST),
    "smallest": AcceleratorConfig(
        epilogue_lanes=4,
        norm_lanes=1,
        weight_depth=1,
        act_depth=1,
        residual_depth=1,
        score_depth=1,
        param_depth=1,
        max_dim=8,
        max_tokens=1,
        max_experts=1,
        max_top_k=1,
    ),
    "four masters": AcceleratorConfig(
        lanes_k=64,
        lanes_n=64,
        epilogue_lanes=32,
        dsp_chain=4,
        norm_lanes=32,
        axi_masters=4,
        axi_bytes=16,
        **LARGEST,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_no_value_is_cut_without_a_word(name):
    """A site that fails needs a wider signal, or a slice (``truncate``) with the reason why nothing is lost."""
    sites = [str(site) for site in narrowings(Accelerator(CONFIGS[name]))]
    assert not sites, "\n".join(sites)


class Cuts(wiring.Component):
    """Every way to lose bits, and after them every way to say so; the lint names the first by their lines."""

    def __init__(self):
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        wide, other, narrow, choice = Signal(5), Signal(5), Signal(4), Signal()
        record = Signal(data.StructLayout({"a": 5, "b": 4}))
        negative, positive = Signal(signed(5)), Signal(4)
        m.d.comb += narrow.eq(wide)  # cut
        m.d.comb += record.b.eq(record.a)  # cut
        m.d.comb += narrow.eq(Mux(choice, wide, 0))  # cut
        m.d.comb += record.b.eq(wide.replicate(2))  # cut
        m.d.comb += narrow.eq(~wide)  # cut
        m.d.comb += narrow.eq(wide & other)  # cut
        m.d.comb += narrow.eq(wide >> choice)  # cut
        m.d.comb += narrow.eq(narrow * 2)  # cut
        m.d.comb += narrow.eq(wide + 1)  # cut
        m.d.comb += narrow.eq(negative)  # cut
        m.d.comb += positive.eq(Mux(negative < 0, -negative, negative))  # cut
        m.d.comb += narrow[:2].eq(record.b)  # cut
        with m.If(choice):
            m.d.comb += narrow[:3].eq(narrow[:2] + narrow[:2] + narrow[:2])  # cut
            m.d.comb += record.b.eq(16)  # cut
        m.d.comb += narrow.eq(wide[:4])
        m.d.comb += narrow.eq(truncate(Mux(choice, wide, other), 4))
        m.d.comb += narrow.eq(wide >> 1)
        m.d.comb += narrow.eq(wide & 15)
        m.d.comb += narrow.eq(narrow + wide[0])
        m.d.comb += narrow.eq(narrow - 1)
        m.d.comb += narrow.eq(wide > other)
        return m


def test_the_lint_sees_every_kind_of_cut():
    lines, first = inspect.getsourcelines(Cuts.elaborate)
    marked = [first + number for number, line in enumerate(lines) if line.endswith("# cut\n")]
    found = narrowings(Cuts(), folder="tests")
    assert [site.line for site in found] == marked
    assert str(found[0]) == f"tests/hw/test_narrowing.py:{marked[0]}: 5 bits are assigned to 4"


def test_signatures_of_other_widths_are_not_connected():
    """Which is why the lint need not look at ``connect``."""
    m = Module()
    narrow, wide = (wiring.Signature({"row": wiring.Out(bits)}).create() for bits in (4, 5))
    with pytest.raises(wiring.ConnectionError, match="shape widths"):
        wiring.connect(m, wide, wiring.flipped(narrow))
