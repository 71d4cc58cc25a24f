"""The accelerator's parameters: one frozen, validated object from which RTL, compiler and host are derived."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass

from edgemoe_hw.spec import constants

__all__ = ["ISA_VERSION", "NOT_HASHED", "PRESETS", "AcceleratorConfig", "ConfigError"]

ISA_VERSION = 4


_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")  # it becomes part of files' names
_LARGEST = {
    "lanes_k": constants.MAX_LANES,
    "lanes_n": constants.MAX_LANES,
    "max_dim": constants.MAX_DIM,
    "max_tokens": constants.MAX_TOKENS,
    "max_experts": constants.MAX_EXPERTS,
    "max_top_k": constants.MAX_TOP_K,
    "weight_depth": constants.MAX_DEPTH,
    "act_depth": constants.MAX_DEPTH,
    "residual_depth": constants.MAX_DEPTH,
    "score_depth": constants.MAX_DEPTH,
    "param_depth": constants.MAX_DEPTH,
    "dram_latency": 100_000,
}
_MAX_CLOCK_MHZ = 10_000
_MAX_GB_PER_SECOND = 10_000
#: Fields that change neither hardware nor layout.
NOT_HASHED = ("name", "ultra_ram", "dram_latency", "assumed_clock_mhz", "dram_gb_per_second")


class ConfigError(ValueError):
    """A configuration or model/configuration combination that cannot work."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class AcceleratorConfig:
    """Shape of one accelerator.

    Attributes:
        name: preset's name, for reports only (not hashed)
        lanes_k: int8 activations of one token a cycle
        lanes_n: weight rows (output channels) a cycle
        epilogue_lanes: accumulators requantized a cycle; divides both ``lanes_k`` and ``lanes_n``
        dsp_chain: products that a cascade of DSPs sums: 1, 2 or 4; 4 needs the 27-bit multipliers of UltraScale+ DSPs
        norm_lanes: residual elements a cycle in the LayerNorm unit; divides ``epilogue_lanes``
        weight_depth: rows of the weight scratchpad (``lanes_n * lanes_k`` bytes a row)
        act_depth: rows of the activation scratchpad (``lanes_k`` bytes a row)
        residual_depth: rows of the residual scratchpad (``epilogue_lanes`` int16 a row)
        score_depth: rows of the score scratchpad (``lanes_k`` 12-bit scores a row)
        param_depth: rows of the parameter scratchpad (``epilogue_lanes`` x 8 bytes a row)
        max_dim: largest LayerNorm width (channels)
        max_tokens: most tokens of a program, of all its token sequences together; an expert's queue has as many entries
        max_experts: most experts of one MoE layer
        max_top_k: most experts a token
        axi_masters: AXI4 read masters; a row of weights is divided between all, any other between as many as it is
            beats wide (``load_masters``)
        axi_bytes: data bytes a beat of one master (8 or 16)
        ultra_ram: activations, residual rows, scores and requantize parameters in UltraRAM, which the FPGA must have
            (not hashed: nothing but the kind of memory changes)
        dram_latency: cycles from read address to first data in the DRAM model (simulation only, not hashed)
        assumed_clock_mhz: clock assumed in reports until place and route confirms one (not hashed)
        dram_gb_per_second: of 10^9 bytes, what the board's DRAM gives to all masters together, reads and writes (not
            hashed); None: as much as the masters take

    Raises:
        ConfigError: a value is out of range; the message says which and what is allowed
    """

    name: str = "custom"
    lanes_k: int = 8
    lanes_n: int = 8
    epilogue_lanes: int = 8
    dsp_chain: int = 2
    norm_lanes: int = 2
    weight_depth: int = 512
    act_depth: int = 4096
    residual_depth: int = 4096
    score_depth: int = 2048
    param_depth: int = 512
    max_dim: int = 256
    max_tokens: int = 256
    max_experts: int = 16
    max_top_k: int = 4
    axi_masters: int = 1
    axi_bytes: int = 8
    ultra_ram: bool = False
    dram_latency: int = 32
    assumed_clock_mhz: float = 100.0
    dram_gb_per_second: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "name":
                _require(isinstance(value, str), f"name must be a string, not {value!r}")
                _require(
                    bool(_NAME.fullmatch(value)),
                    f"name must be letters, digits, '.', '_' and '-', 1 to 64, not {value[:80]!r}",
                )
            elif field.name == "ultra_ram":
                _require(isinstance(value, bool), f"ultra_ram must be true or false, not {value!r}")
            elif field.name == "assumed_clock_mhz":
                _require(
                    isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MAX_CLOCK_MHZ,
                    f"assumed_clock_mhz must be a positive number up to {_MAX_CLOCK_MHZ}, not {value!r}",
                )
            elif field.name == "dram_gb_per_second":
                _require(
                    value is None
                    or isinstance(value, (int, float))
                    and not isinstance(value, bool)
                    and 0 < value <= _MAX_GB_PER_SECOND,
                    f"dram_gb_per_second must be a positive number up to {_MAX_GB_PER_SECOND} or null, not {value!r}",
                )
            else:
                _require(
                    isinstance(value, int) and not isinstance(value, bool) and value > 0,
                    f"{field.name} must be a positive integer, not {value!r}",
                )
        for field_name in ("lanes_k", "epilogue_lanes"):
            value = getattr(self, field_name)
            _require(value & (value - 1) == 0, f"{field_name} must be a power of two, not {value!r}")
        _require(self.lanes_k >= 8, f"lanes_k must be at least 8, not {self.lanes_k!r}")
        _require(
            self.lanes_k % self.epilogue_lanes == 0,
            f"epilogue_lanes must divide lanes_k ({self.lanes_k}), not {self.epilogue_lanes!r}",
        )
        _require(
            self.lanes_n % self.epilogue_lanes == 0,
            f"epilogue_lanes must divide lanes_n ({self.lanes_n}), not {self.epilogue_lanes!r}",
        )
        _require(
            self.epilogue_lanes % self.norm_lanes == 0,
            f"norm_lanes must divide epilogue_lanes ({self.epilogue_lanes}), not {self.norm_lanes!r}",
        )
        _require(self.lanes_n % 2 == 0, f"lanes_n must be even (two products share a DSP), not {self.lanes_n!r}")
        _require(
            self.dsp_chain in constants.DSP_CHAINS,  # lanes_k is at least 8
            f"dsp_chain must be 1, 2 or 4, not {self.dsp_chain!r}",
        )
        _require(self.axi_bytes in (8, 16), f"axi_bytes must be 8 or 16, not {self.axi_bytes!r}")
        _require(self.axi_masters in (1, 2, 4), f"axi_masters must be 1, 2 or 4, not {self.axi_masters!r}")
        _require(
            self.lanes_k % self.axi_bytes == 0,
            f"lanes_k must be a multiple of axi_bytes ({self.axi_bytes}), not {self.lanes_k!r}",
        )
        _require(
            self.lanes_n % self.axi_masters == 0,
            f"lanes_n must be a multiple of axi_masters ({self.axi_masters}), not {self.lanes_n!r}",
        )
        _require(
            2 * self.epilogue_lanes % self.axi_bytes == 0,
            f"2 * epilogue_lanes must be a multiple of axi_bytes ({self.axi_bytes}), not {2 * self.epilogue_lanes!r}",
        )
        _require(
            8 * self.norm_lanes % self.axi_bytes == 0,
            f"8 * norm_lanes must be a multiple of axi_bytes ({self.axi_bytes}), not {8 * self.norm_lanes!r}",
        )
        for field_name, largest in _LARGEST.items():
            value = getattr(self, field_name)
            _require(value <= largest, f"{field_name} must be at most {largest}, not {value!r}")
        slice_bytes = self.axi_masters * self.axi_bytes
        beats = self.lanes_n * self.lanes_k // slice_bytes
        _require(
            beats <= constants.MAX_SLICE_BEATS,
            f"lanes_n * lanes_k must be at most {constants.MAX_SLICE_BEATS} * axi_masters * axi_bytes "
            f"({constants.MAX_SLICE_BEATS * slice_bytes}), not {self.lanes_n * self.lanes_k}",
        )

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates of the array in a cycle: P of the bound."""
        return self.lanes_k * self.lanes_n

    @property
    def port_bytes_per_cycle(self) -> int:
        """Bytes that all masters together can move in a cycle."""
        return self.axi_masters * self.axi_bytes

    @property
    def dram_bytes_per_cycle(self) -> float:
        """The least of what ports and DRAM give: B of the bound. A faster clock brings no faster DRAM."""
        if self.dram_gb_per_second is None:
            return self.port_bytes_per_cycle
        return min(self.port_bytes_per_cycle, self.dram_gb_per_second * 1000 / self.assumed_clock_mhz)

    @property
    def epilogue_cycles(self) -> int:
        """Cycles in which the epilogue drains one full tile of ``lanes_n`` accumulators."""
        return self.lanes_n // self.epilogue_lanes

    @property
    def row_bytes(self) -> dict[str, int]:
        """Bytes of one row of each loadable memory, keyed by ``isa.Memory`` name."""
        return {
            "WEIGHT": self.lanes_n * self.lanes_k,
            "ACT": self.lanes_k,
            "RESIDUAL": 2 * self.epilogue_lanes,
            "PARAM": 8 * self.epilogue_lanes,
            "NORM": 8 * self.norm_lanes,  # master 0 only
            "ACTIVATION": self.axi_bytes,  # master 0 only
        }

    def load_masters(self, memory: str) -> int:
        """Number of masters that share a load into ``memory``, each with an equal slice of a row; the first ones.

        All of them for weights: a slice is a number of neighbouring banks. A row of another memory has a slice for
        every master as long as each gets at least a beat; of NORM and ACTIVATION there is too little to share.
        """
        if memory in ("NORM", "ACTIVATION"):
            return 1
        return min(self.axi_masters, self.row_bytes[memory] // self.axi_bytes)

    def to_dict(self) -> dict[str, object]:
        """All fields by name."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """All fields as JSON, as ``--config FILE`` takes it."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True)

    @classmethod
    def from_dict(cls, values: object) -> AcceleratorConfig:
        """The configuration that ``to_dict`` wrote; ConfigError for unknown or bad fields."""
        if not isinstance(values, dict):
            raise ConfigError(f"config must be a JSON object, not {type(values).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        _require(not unknown, f"config has unknown fields {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> AcceleratorConfig:
        """The configuration that ``to_json`` wrote; ConfigError for anything else."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"config must be JSON: {error}") from None
        return cls.from_dict(values)

    @property
    def content_hash(self) -> str:
        """sha256 (hex) of all that changes hardware or bundle layout."""
        return self.content_hash_of(ISA_VERSION)

    def content_hash_of(self, isa_version: int) -> str:
        """``content_hash`` of the same configuration as it was with an earlier ISA."""
        values = {name: value for name, value in self.to_dict().items() if name not in NOT_HASHED}
        values["isa_version"] = isa_version
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def hash32(self) -> int:
        """First 32 bits of ``content_hash``: what the CONFIG_HASH register and the BEGIN command carry."""
        return int(self.content_hash[:8], 16)


PRESETS: dict[str, AcceleratorConfig] = {
    preset.name: preset
    for preset in (
        AcceleratorConfig(
            name="pynq-z2",
            lanes_k=16,
            lanes_n=24,
            epilogue_lanes=8,
            norm_lanes=2,
            weight_depth=512,
            act_depth=9728,  # two token sequences of m3vit-tiny, and an expert's hidden layer of all their tokens
            residual_depth=6656,
            score_depth=512,
            param_depth=512,
            max_dim=256,
            max_tokens=516,  # four sequences of 129
            axi_masters=2,
            axi_bytes=8,
            dram_latency=64,
            assumed_clock_mhz=142.86,
            dram_gb_per_second=1.575,  # 75 % of the peak
        ),
        AcceleratorConfig(
            name="zcu102",
            lanes_k=64,
            lanes_n=64,
            epilogue_lanes=32,
            dsp_chain=4,
            norm_lanes=16,
            weight_depth=512,  # what a block RAM of 72 bits has
            act_depth=5120,  # four token sequences of m3vit-tiny, and an expert's hidden layer of all their tokens
            residual_depth=4096,
            score_depth=1024,
            param_depth=512,
            max_dim=512,
            max_tokens=516,  # four sequences of 129
            axi_masters=4,
            axi_bytes=16,
            dram_latency=100,
            assumed_clock_mhz=250.0,
            dram_gb_per_second=12.825,  # 75 % of the peak
        ),
        AcceleratorConfig(
            name="tiny",
            lanes_k=8,
            lanes_n=8,
            epilogue_lanes=8,
            norm_lanes=2,
            weight_depth=512,
            act_depth=8192,
            residual_depth=2048,
            score_depth=2048,
            param_depth=512,
            max_dim=256,
            axi_masters=1,
            axi_bytes=8,
            dram_latency=32,
            assumed_clock_mhz=50.0,
        ),
    )
}
