"""Boards: one data file each, ``boards/<board>/board.toml``, read and checked here.

A board's configuration is a preset of ``edgemoe_hw.spec.config`` with what the board decides (memory ports, DRAM
latency, clock) and its own overrides. ``[variants.<word>]`` are further overrides: the board with another accelerator,
``<board>-<word>``, which stands wherever a board's name does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe.boards.synth import DEVICES, FpgaDevice
from edgemoe.boards.zynq import FAMILIES, HpPort, ZynqFamily
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig, ConfigError
from edgemoe_models.storage import toml_text

__all__ = [
    "BOARDS",
    "Board",
    "BoardError",
    "board_names",
    "configuration_names",
    "load_board",
    "read_board",
    "read_toml",
]

_PACKAGED = Path(__file__).with_name("data")  # a wheel has boards/ of the sources there
BOARDS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "boards"
_FILE = "board.toml"

# Keys of a data file and the types of their values. `overrides` are fields of AcceleratorConfig, and so are each
# variant's, which come on top.
_KEYS: dict[str, type | tuple[type, ...]] = {
    "title": str,
    "part": str,
    "board_part": str,
    "device": str,
    "family": str,
    "pynq": str,
    "dram_mib": int,
    "dram_latency": int,
    "dram_peak_gb_per_second": (int, float),
    "dram_share": (int, float),
    "hp_ports": int,
    "hp_bits": int,
    "clock_mhz": (int, float),
    "pll_mhz": (int, float),
    "preset": str,
    "status": str,
    "sources": list,
    "overrides": dict,
    "variants": dict,
}
_OPTIONAL = {"overrides", "variants"}
_VARIANT = re.compile(r"[a-z][a-z0-9]*")
# Fields of AcceleratorConfig that the board's own keys decide.
_DECIDED = {"name", "axi_masters", "axi_bytes", "dram_latency", "assumed_clock_mhz", "dram_gb_per_second"}

_MOST_DIVISOR = 63  # of each of a PL clock's two
_LEAST_CLOCK = 0.9  # of clock_mhz, that the PLL must give; as in boards/build.tcl


class BoardError(ValueError):
    """A board is unknown, its data file is wrong, or something that it needs is missing."""


@dataclass(frozen=True)
class Board:
    """One board, with its own accelerator or a variant's.

    Attributes:
        name: of its folder; a variant's with ``-<word>`` behind it
        file: its data file
        title, status, sources, pynq: for people: what it is, what was tried on it, where the facts are from, its images
        part, board_part: as Vivado names them, the board part without version
        device: capacity of the FPGA
        family: of its processing system
        dram_bytes: DRAM of the PS
        dram_peak_gb_per_second: of 10^9 bytes, transfers a second times the width of its data bus
        dram_share: of that peak that the accelerator is assumed to get
        hp_ports, hp_bits: memory ports that the accelerator uses, one a master, and their width
        clock_mhz: of the programmable logic; an assumption until placed and routed
        pll_mhz: of the PS's IO PLL in the board's preset, by whole numbers of which the PL's clock is divided
        config: the accelerator
    """

    name: str
    file: Path
    title: str
    part: str
    board_part: str
    device: FpgaDevice
    family: ZynqFamily
    pynq: str
    dram_bytes: int
    dram_peak_gb_per_second: float
    dram_share: float
    hp_ports: int
    hp_bits: int
    clock_mhz: float
    pll_mhz: float
    config: AcceleratorConfig
    status: str
    sources: tuple[str, ...]

    @property
    def dram_gb_per_second(self) -> float:
        """Of 10^9 bytes: what the accelerator is assumed to get of the DRAM, reads and writes together."""
        return usable_gb_per_second(self.dram_peak_gb_per_second, self.dram_share)

    @property
    def port_gb_per_second(self) -> float:
        """What all memory ports together could take at the assumed clock."""
        return self.config.port_bytes_per_cycle * self.clock_mhz / 1000

    @property
    def used_gb_per_second(self) -> float:
        """The least of what the DRAM gives and the ports take."""
        return min(self.dram_gb_per_second, self.port_gb_per_second)

    @property
    def ports(self) -> tuple[HpPort, ...]:
        """The HP port of each master."""
        return tuple(self.family.hp_port(index, self.dram_bytes) for index in range(self.hp_ports))

    @property
    def ps_settings(self) -> dict[str, str]:
        return self.family.settings(self.clock_mhz, self.hp_ports, self.hp_bits, self.dram_bytes)

    @property
    def divisors(self) -> tuple[int, int]:
        """The two divisors that make the PL's clock of ``pll_mhz``: the fastest that is not above ``clock_mhz``."""
        ratio = self.pll_mhz / self.clock_mhz
        pairs = [
            (first, second)
            for second in range(1, _MOST_DIVISOR + 1)
            for first in range(second, _MOST_DIVISOR + 1)
            if first * second >= ratio * (1 - 1e-6)
        ]
        if not pairs:
            raise BoardError(
                f"clock_mhz of {self.name} must be at least {self.pll_mhz / _MOST_DIVISOR**2:.3g}, "
                f"not {self.clock_mhz:g}"
            )
        return min(pairs, key=lambda pair: pair[0] * pair[1])

    @property
    def pl_clock_mhz(self) -> float:
        """The clock that the PL gets when ``clock_mhz`` is asked for."""
        first, second = self.divisors
        return self.pll_mhz / first / second


def usable_gb_per_second(peak: float, share: float) -> float:
    """A share of a DRAM's peak, without the digits that the product of two decimal fractions has too many."""
    return round(peak * share, 6)


def board_names(folder: Path = BOARDS) -> list[str]:
    """Names of all boards, without their variants."""
    return sorted(path.parent.name for path in folder.glob(f"*/{_FILE}"))


def configuration_names(folder: Path = BOARDS) -> list[str]:
    """Names of all boards, each followed by its variants: all that ``load_board`` takes."""
    names = []
    for name in board_names(folder):
        with _named(folder / name / _FILE) as path:
            names += [name, *(f"{name}-{word}" for word in _values(path).get("variants", {}))]
    return names


def load_board(name: str, folder: Path = BOARDS) -> Board:
    """The board, or the variant of a board, called ``name``.

    Raises:
        BoardError: there is none of that name, or its data file is wrong; one message says what and where
    """
    names = board_names(folder)
    if not names:
        raise BoardError(f"no board's data file is in {folder}: this copy of edgemoe is incomplete")
    if name in names:
        return read_board(folder / name / _FILE)
    known = configuration_names(folder)
    if name not in known:
        raise BoardError(f"board must be one of {', '.join(known)}, not {name!r}")
    board, _, variant = name.rpartition("-")
    return read_board(folder / board / _FILE, variant)


def read_board(path: Path, variant: str = "") -> Board:
    """A board from its data file, with its own accelerator or that of a variant.

    Raises:
        BoardError: the file is wrong
    """
    with _named(path):
        return _board(path, _values(path), variant)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[Path]:
    """An error in a data file names the file."""
    try:
        yield path
    except (BoardError, ConfigError) as error:
        raise BoardError(f"{path}: {error}") from None


def _values(path: Path) -> dict[str, Any]:
    values = read_toml(path)
    _check_keys(values)
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """A data file's keys; BoardError, which does not name the file, if it is not TOML."""
    try:
        return toml_text.read_toml(path)
    except toml_text.TomlError as error:
        raise BoardError(str(error)) from None


def _board(path: Path, values: dict[str, Any], variant: str) -> Board:
    name = path.parent.name
    family, device = FAMILIES[values["family"]], DEVICES[values["device"]]
    config = _config(name, values, {}, "overrides")
    for word, changes in values.get("variants", {}).items():  # all: one that is wrong is found whichever is asked for
        found = _config(f"{name}-{word}", values, changes, f"variants.{word}")
        if word == variant:
            config = found
    same = ("title", "part", "board_part", "pynq", "hp_ports", "hp_bits", "status")
    board = Board(
        name=config.name,
        file=path,
        device=device,
        family=family,
        dram_bytes=values["dram_mib"] << 20,
        dram_peak_gb_per_second=float(values["dram_peak_gb_per_second"]),
        dram_share=float(values["dram_share"]),
        config=config,
        sources=tuple(values["sources"]),
        clock_mhz=float(values["clock_mhz"]),
        pll_mhz=float(values["pll_mhz"]),
        **{key: values[key] for key in same},
    )
    if board.pl_clock_mhz < _LEAST_CLOCK * board.clock_mhz:
        raise BoardError(
            f"clock_mhz must be pll_mhz divided by a whole number, or a little more: a PLL of "
            f"{board.pll_mhz:g} MHz gives {board.pl_clock_mhz:g}, not {board.clock_mhz:g}"
        )
    return board


def _config(name: str, values: dict[str, Any], changes: dict[str, Any], where: str) -> AcceleratorConfig:
    """The board's configuration, with a variant's changes."""
    preset = PRESETS[values["preset"]]
    overrides = values.get("overrides", {}) | changes
    if decided := sorted(_DECIDED & overrides.keys()):
        raise BoardError(f"{where} must not have {', '.join(decided)}: the board's other keys decide that")
    try:
        return dataclasses.replace(
            preset,
            name=name,
            axi_masters=values["hp_ports"],
            axi_bytes=values["hp_bits"] // 8,
            dram_latency=values["dram_latency"],
            assumed_clock_mhz=float(values["clock_mhz"]),
            dram_gb_per_second=usable_gb_per_second(values["dram_peak_gb_per_second"], values["dram_share"]),
            **overrides,
        )
    except TypeError:
        unknown = sorted(overrides.keys() - {field.name for field in dataclasses.fields(preset)})
        raise BoardError(f"{where} has unknown fields {', '.join(unknown)}") from None
    except ConfigError as error:
        raise BoardError(f"{where}: {error}" if changes else str(error)) from None


def _check_keys(values: dict[str, Any]) -> None:
    if missing := sorted(_KEYS.keys() - _OPTIONAL - values.keys()):
        raise BoardError(f"{', '.join(missing)} missing")
    if unknown := sorted(values.keys() - _KEYS.keys()):
        raise BoardError(f"unknown keys {', '.join(unknown)}; known: {', '.join(_KEYS)}")
    for key, value in values.items():
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            kinds = _KEYS[key]
            wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise BoardError(f"{key} must be {wanted}, not {value!r}")
        if isinstance(value, (int, float)) and value <= 0:
            raise BoardError(f"{key} must be positive, not {value!r}")
    for word, changes in values.get("variants", {}).items():
        if not _VARIANT.fullmatch(word) or not isinstance(changes, dict) or not changes:
            raise BoardError(
                f"variants must be tables [variants.word] with fields that differ, not {word} = {changes!r}"
            )
    for key, known in (("family", FAMILIES), ("device", DEVICES), ("preset", PRESETS)):
        if values[key] not in known:
            raise BoardError(f"{key} must be one of {', '.join(known)}, not {values[key]!r}")
    if not values["part"].startswith(values["device"]):
        raise BoardError(f"part {values['part']!r} is not of device {values['device']!r}")
    if (values["device"].startswith("xc7z")) != (values["family"] == "zynq-7000"):
        raise BoardError(f"device {values['device']!r} is not of family {values['family']!r}")
    if not 1 <= values["hp_ports"] <= 4:
        raise BoardError(f"hp_ports must be between 1 and 4, not {values['hp_ports']!r}")
    if old := re.search(r"(?<![\d.])[0-2]\.\d", values["pynq"]):
        raise BoardError(f"pynq must name no image before 3.0, whose Python is older than 3.10, not {old[0]}")
    if values["dram_share"] > 1:
        raise BoardError(f"dram_share must be at most 1, not {values['dram_share']!r}")
    widths = FAMILIES[values["family"]].hp_bits
    if values["hp_bits"] not in widths:
        raise BoardError(f"hp_bits must be {' or '.join(map(str, widths))}, not {values['hp_bits']!r}")
