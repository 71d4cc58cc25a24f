"""How the simulated DRAM and the ports to it behave, beside the configuration's latency and bandwidth."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["DRAM_MODELS", "DramModel", "DramOptions", "check_stall", "find_dram_model"]

_MOST_BEATS, _MOST_OUTSTANDING = 256, 64  # an AXI4 burst's; MAX_OUTSTANDING of dram_model.h


class DramOptions(ctypes.Structure):
    """``DramOptions`` of dram_model.h, where each field is explained."""

    _fields_ = [
        ("latency", ctypes.c_uint64),
        ("stall", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        ("bytes_per_cycle", ctypes.c_double),
        ("burst_beats", ctypes.c_uint32),
        ("outstanding", ctypes.c_uint32),
        ("refresh_period", ctypes.c_double),
        ("refresh_cycles", ctypes.c_double),
    ]


def check_stall(stall: float) -> None:
    """Raise ValueError unless it is a probability below 1."""
    if not 0 <= stall < 1:
        raise ValueError(f"stall must be at least 0 and below 1, not {stall!r}")


@dataclass(frozen=True)
class DramModel:
    """What a processing system's memory ports and its DRAM do to transfers.

    Bandwidth and latency are the configuration's. Where ``dram_bytes_per_cycle`` is less than the ports take, reads
    and writes of all masters share it, each in turn.

    Attributes:
        name: for reports
        burst_beats: longer bursts are split; one part goes to the DRAM in a cycle, and each has the whole latency
        outstanding: most bursts, or parts of split ones, that are unfinished, a master and direction
        refresh_period_ns, refresh_ns: every so often nothing moves for so long, at the configuration's assumed clock;
            0: never. On top of the bandwidth, which as a share of the peak has refreshes already in it
        stall: probability that a channel of the bus pauses in a cycle

    Raises:
        ValueError: a value is out of range
    """

    name: str = "plain"
    burst_beats: int = _MOST_BEATS
    outstanding: int = _MOST_OUTSTANDING
    refresh_period_ns: float = 0.0
    refresh_ns: float = 0.0
    stall: float = 0.0

    def __post_init__(self) -> None:
        for field, most in (("burst_beats", _MOST_BEATS), ("outstanding", _MOST_OUTSTANDING)):
            if not 1 <= getattr(self, field) <= most:
                raise ValueError(f"{field} must be between 1 and {most}, not {getattr(self, field)!r}")
        if not 0 <= self.refresh_ns <= self.refresh_period_ns / 2:
            raise ValueError(
                f"refresh_ns must be at most half of refresh_period_ns ({self.refresh_period_ns:g}), "
                f"not {self.refresh_ns!r}"
            )
        check_stall(self.stall)

    def options(self, config: AcceleratorConfig, stall: float, seed: int) -> DramOptions:
        """For the simulator; the larger of the two probabilities of a pause is taken."""
        limited = config.dram_bytes_per_cycle < config.port_bytes_per_cycle
        cycles_per_ns = config.assumed_clock_mhz / 1000
        return DramOptions(
            latency=config.dram_latency,
            stall=max(self.stall, stall),
            seed=seed,
            bytes_per_cycle=config.dram_bytes_per_cycle if limited else 0,
            burst_beats=self.burst_beats,
            outstanding=self.outstanding,
            refresh_period=self.refresh_period_ns * cycles_per_ns,
            refresh_cycles=self.refresh_ns * cycles_per_ns,
        )


_AXI3 = DramModel("axi3", burst_beats=16, outstanding=8)  # of Zynq-7000: AXI3, and how many S_AXI_HP takes
_REFRESH = replace(_AXI3, name="refresh", refresh_period_ns=7800.0, refresh_ns=350.0)  # JEDEC's tREFI; tRFC of 8 Gbit

#: By name; the first is what a simulation has unless told.
DRAM_MODELS = {
    model.name: model for model in (DramModel(), _AXI3, _REFRESH, replace(_REFRESH, name="worst", stall=0.3))
}


def find_dram_model(model: str | DramModel) -> DramModel:
    """The model of that name, or itself.

    Raises:
        ValueError: there is none
    """
    if isinstance(model, DramModel):
        return model
    if model not in DRAM_MODELS:
        raise ValueError(f"dram_model must be one of {', '.join(DRAM_MODELS)}, not {model!r}")
    return DRAM_MODELS[model]
