"""What a MATMUL must keep to: fields that have a meaning together, rows that exist, queues that hold its tokens."""

from __future__ import annotations

import numpy as np

from edgemoe.bundle.fields import Columns, Ints
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Mode, RowFactor, Source
from edgemoe_hw.spec.timing import gate_interval
from edgemoe_models.config import ModelConfig

__all__ = ["check_matmuls", "check_tokens"]


def _ceil(value: Ints, by: Ints | int) -> Ints:
    result: Ints = -(-value // by)
    return result


def check_tokens(c: Columns, tokens: Ints, most: int) -> None:
    """A command works on at least one token, and on no more than there are."""
    good = (tokens >= 1) & (tokens <= most)
    c.must(good, "is of {tokens} tokens, but there are {most}", tokens=tokens, most=most)


def check_matmuls(c: Columns, config: AcceleratorConfig, model: ModelConfig, all_tokens: int) -> None:
    """Fields that have a meaning together, and all rows that are read and written, whatever the image.

    ``all_tokens``: of all token sequences of the program, which share the experts' queues.
    """
    mode = c["mode"]
    queued = c["use_queue"] != 0
    for name, kinds in (("mode", Mode), ("row_factor", RowFactor)):
        c.must(c[name] < len(kinds), "has {name} {found}, which there is not", name=name, found=c[name])
    tokens = np.where(queued, all_tokens, c["tokens"])
    check_tokens(c, tokens, all_tokens)
    for name in ("k_steps", "tiles"):
        c.must(c[name] >= 1, "has {name} 0", name=name)
    width, channels = c["tiles"] * config.lanes_n, c["channels"]
    c.must(channels <= width, "has {n} channels, but its tiles have {width}", n=channels, width=width)
    gap, found = max(1, config.epilogue_cycles), c["min_gap"]
    c.must(found >= gap, "has min_gap {found}, but the epilogue needs {gap} cycles", found=found, gap=gap)
    from_scores, is_act, is_residual = c["source"] == Source.SCORE, mode == Mode.ACT, mode == Mode.RESIDUAL
    rules = (
        ("gather", c["gather"] != 0, queued, "use_queue"),
        ("scatter", c["scatter"] != 0, queued, "use_queue"),
        ("row_factor GATE", c["row_factor"] == RowFactor.GATE, queued, "use_queue"),
        ("row_factor SOFTMAX", c["row_factor"] == RowFactor.SOFTMAX, from_scores, "source SCORE"),
        ("source SCORE", from_scores, is_act & ~queued, "mode ACT"),
        ("use_queue", queued, is_act | is_residual, "mode ACT or RESIDUAL"),
        ("activate", c["activate"] != 0, is_act, "mode ACT"),
        ("accumulate", c["accumulate"] != 0, is_residual, "mode RESIDUAL"),
    )
    for name, given, needed, needs in rules:
        c.must(~given | needed, "has {name} without {needs}", name=name, needs=needs)
    _check_operands(c, config, tokens)
    _check_results(c, config, tokens)
    _check_gates(c, config, model, all_tokens)


def _check_operands(c: Columns, config: AcceleratorConfig, tokens: Ints) -> None:
    """Rows that a MATMUL reads. A queue holds any of the program's tokens."""
    last = tokens - 1
    end = c["src_base"] + last * c["src_stride"] + c["k_steps"]
    scores = c["source"] == Source.SCORE
    c.must_fit("reads", "ACT", config.act_depth, c["src_base"], end, ~scores)
    c.must_fit("reads", "SCORE", config.score_depth, c["src_base"], end, scores)
    tile_rows = np.where(c["nibbles"] != 0, _ceil(c["k_steps"], 2), c["k_steps"])
    c.must_fit("reads", "WEIGHT", config.weight_depth, c["weight_base"], c["weight_base"] + c["tiles"] * tile_rows)
    groups = np.where(c["param_uniform"] != 0, 1, _ceil(c["channels"], config.epilogue_lanes))
    c.must_fit("reads", "PARAM", config.param_depth, c["param_base"], c["param_base"] + groups)
    maxima = c["max_base"] + tokens
    uses = scores | (c["mode"] == Mode.SCORE)
    c.must_fit("uses", "ROWMAX", config.max_tokens, c["max_base"], maxima, uses)
    wide = np.where(scores, c["k_steps"] * config.lanes_k, c["channels"])
    good = ~uses | ((c["keys"] >= 1) & (c["keys"] <= wide))
    c.must(good, "has {keys} keys, but {wide} places for them", keys=c["keys"], wide=wide)


def _check_results(c: Columns, config: AcceleratorConfig, tokens: Ints) -> None:
    """Rows that a MATMUL writes, by its mode; one without channels writes none."""
    mode, channels = c["mode"], c["channels"]
    writes = channels > 0
    last = tokens - 1
    begin = c["dst_base"]
    for kind, memory, lanes, depth in (
        (Mode.ACT, "ACT", config.lanes_k, config.act_depth),
        (Mode.RESIDUAL, "RESIDUAL", config.epilogue_lanes, config.residual_depth),
        (Mode.SCORE, "SCORE", config.lanes_k, config.score_depth),
    ):
        first = 0 if kind == Mode.SCORE else c["dst_channel"]
        end = begin + last * c["dst_stride"] + _ceil(first + channels, lanes)
        c.must_fit("writes", memory, depth, begin, end, writes & (mode == kind))
    is_key, is_value = mode == Mode.KEY, mode == Mode.VALUE
    stationary = is_key | is_value
    c.must(~stationary | (c["head_dim"] >= 1), "has head_dim 0")
    lanes_of_token, rest = np.where(is_key, config.lanes_n, config.lanes_k), c["token_rem"]
    good = ~stationary | (rest < lanes_of_token)
    c.must(good, "has token_rem {rest}, but {lanes} lanes", rest=rest, lanes=lanes_of_token)
    head_dim = np.maximum(c["head_dim"], 1)
    rows = _ceil(rest + tokens, lanes_of_token)  # of a head's keys: tiles of tokens
    outer = np.where(is_key, rows, _ceil(head_dim, config.lanes_n))
    inner = np.where(is_key, _ceil(head_dim, config.lanes_k), rows)
    end = begin + (_ceil(channels, head_dim) - 1) * c["head_stride"] + (outer - 1) * c["tile_stride"] + inner
    c.must_fit("writes", "WEIGHT", config.weight_depth, begin, end, writes & stationary)


def _check_gates(c: Columns, config: AcceleratorConfig, model: ModelConfig, most: int) -> None:
    """The queues get each of the program's tokens at most once, of its own experts, no faster than the gate unit is."""
    places = np.flatnonzero(c["mode"] == Mode.GATE)
    if not len(places):
        return
    gates = Columns(c.opcode, c.numbers[places], c.words[places], {})
    tokens, first = gates["tokens"], gates["gate_first"] != 0
    gates.must(tokens * model.num_experts > 0, "is a GATE, but the model has no experts")
    for name, value in (("num_experts", model.num_experts), ("top_k", model.top_k), ("channels", model.num_experts)):
        found = gates[name]
        gates.must(found == value, "has {name} {found}, but the model has {value}", name=name, found=found, value=value)
    begin = gates["max_base"]
    last = begin + tokens - 1
    gates.must(last < most, "queues tokens {begin} to {last}, but there are {most}", begin=begin, last=last, most=most)
    total = np.cumsum(tokens)
    begun = np.maximum.accumulate(np.where(first, np.arange(len(gates)), -1))
    gates.must(begun >= 0, "fills queues that nothing has emptied")
    queued = total - (total - tokens)[begun]
    gates.must(queued <= most, "makes it {queued} tokens in the queues, but there are {most}", queued=queued, most=most)
    interval = gate_interval(config, model.num_experts, model.top_k)
    pace = gates["min_gap"] * gates["tiles"]
    text = "sends tokens every {pace} cycles, but the gate unit needs {interval}"
    gates.must(pace >= interval, text, pace=pace, interval=interval)
