"""How the compiler cuts tokens into groups and heads into parts, from the shapes alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from edgemoe.compiler.errors import CompilerOptions
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig

__all__ = ["Group", "HeadParts", "balanced_groups", "query_groups", "split_groups"]

_FEWEST_QUERIES = 8  # of a group, however few rows of SCORE there are


@dataclass(frozen=True)
class Group:
    """Consecutive tokens ``first`` .. ``first + count - 1``."""

    first: int
    count: int


def balanced_groups(tokens: int, largest: int) -> list[Group]:
    """Split tokens in as few groups of at most ``largest`` as possible, of sizes that differ by at most one."""
    count = -(-tokens // largest)
    cuts = [i * tokens // count for i in range(count + 1)]
    return [Group(start, stop - start) for start, stop in zip(cuts, cuts[1:], strict=False)]


def split_groups(tokens: int, size: int) -> list[Group]:
    """Tokens in groups of ``size``; the last one may be smaller."""
    return [Group(first, min(size, tokens - first)) for first in range(0, tokens, size)]


def query_groups(tokens: int, config: AcceleratorConfig, options: CompilerOptions) -> list[Group]:
    """Groups of queries of one Q.K and P.V each: as in other layers, unless SCORE has no room for two of them."""
    if size := options.attention_group:
        return split_groups(tokens, size)
    at_once = config.score_depth // (2 * -(-tokens // config.lanes_k))
    return balanced_groups(tokens, min(options.group_tokens, max(at_once, _FEWEST_QUERIES)))


@dataclass(frozen=True)
class HeadParts:
    """Heads whose keys and values are on chip together, from the shapes alone.

    Attributes:
        padded: channels of a head, padded to whole rows
        unit: fewest tiles of keys' or values' weights that end where a head ends
        unit_heads: the heads of so many tiles
        head_rows: rows of WEIGHT that keys and values of a head take
        unit_rows: rows that ``unit`` tiles of weights take
        heads: of the model
    """

    padded: int
    unit: int
    unit_heads: int
    head_rows: int
    unit_rows: int
    heads: int

    @classmethod
    def of(cls, model: ModelConfig, config: AcceleratorConfig) -> HeadParts:
        lanes_k, lanes_n, tokens, heads = config.lanes_k, config.lanes_n, model.num_tokens, model.heads
        padded = -(-model.head_dim // lanes_k) * lanes_k
        channels = min(math.lcm(padded, lanes_n), heads * padded)
        keys = -(-tokens // lanes_n) * (padded // lanes_k)
        values = -(-padded // lanes_n) * -(-tokens // lanes_k)
        unit = -(-channels // lanes_n)
        return cls(padded, unit, channels // padded, keys + values, unit * -(-model.dim // lanes_k), heads)

    @property
    def least_rows(self) -> int:
        """Rows of WEIGHT without which not even a unit of heads fits beside the weights that make its keys."""
        return self.unit_heads * self.head_rows + self.unit_rows

    def split(self, depth: int) -> list[range]:
        """All heads in as few parts as fit ``depth`` rows of WEIGHT, of about the same size, the largest first."""
        units = -(-self.heads // self.unit_heads)
        at_once = (depth - self.unit_rows) // self.head_rows
        parts = 1 if at_once >= self.heads else -(-units // max(at_once // self.unit_heads, 1))
        sizes = sorted(((i + 1) * units // parts - i * units // parts for i in range(parts)), reverse=True)
        cuts = [min(cut * self.unit_heads, self.heads) for cut in itertools.accumulate(sizes, initial=0)]
        return [range(*pair) for pair in itertools.pairwise(cuts)]
