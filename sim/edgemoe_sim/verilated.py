"""The Verilated accelerator with its DRAM, as a Python object."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import SIZE_BITS
from edgemoe_hw.spec.isa import Base, Engine
from edgemoe_sim.build import accelerator_verilog, build_library
from edgemoe_sim.dram import DramModel, DramOptions, check_stall, find_dram_model

__all__ = ["BusViolation", "Memory", "ModelError", "ProgramError", "ProgramTimeout", "Stop", "VerilatedModel"]


class ModelError(RuntimeError):
    """The simulated accelerator did not do what was asked."""


class BusViolation(ModelError):
    """The accelerator broke a rule of AXI."""


class ProgramTimeout(ModelError):
    """A program did not end within the given cycles."""


class ProgramError(ModelError):
    """A program was stopped by an error.

    ``code``: the ``ErrorCode``; ``command``: index of the command.
    """

    def __init__(self, code: regs.ErrorCode, command: int):
        super().__init__(f"command {command}: {code.name}, {regs.ERROR_TEXT[code]}")
        self.code = code
        self.command = command


class Stop(enum.IntEnum):
    """Why ``run`` returned."""

    LIMIT = 0
    IRQ = 1
    WATCH = 2


class _MemoryRow(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("width", ctypes.c_uint32),
        ("depth", ctypes.c_uint32),
        ("stride", ctypes.c_uint32),
    ]


@dataclass(frozen=True)
class Memory:
    """Shape of an on-chip memory: ``depth`` rows of ``width`` bits."""

    width: int
    depth: int


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u64, u32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32
    prototypes = {
        "em_create": (handle, [ctypes.c_void_p, u64, ctypes.POINTER(DramOptions)]),
        "em_destroy": (None, [handle]),
        "em_write": (ctypes.c_int, [handle, u32, u32]),
        "em_read": (ctypes.c_int, [handle, u32, ctypes.POINTER(u32)]),
        "em_run": (ctypes.c_int, [handle, u64, ctypes.POINTER(ctypes.c_uint16)]),
        "em_done": (None, [handle, ctypes.POINTER(ctypes.c_uint16)]),
        "em_cycles": (u64, [handle]),
        "em_violation": (ctypes.c_char_p, [handle]),
        "em_beats": (None, [handle, ctypes.POINTER(u64), ctypes.POINTER(u64)]),
        "em_inject": (None, [handle, ctypes.c_int, u64, u64]),
        "em_memories": (ctypes.c_int, [handle, ctypes.POINTER(ctypes.POINTER(_MemoryRow))]),
        "em_trace": (ctypes.c_int, [handle, ctypes.c_char_p, u64]),
        "em_trace_full": (ctypes.c_int, [handle]),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class VerilatedModel:
    """Cycle-accurate accelerator behind its registers and DRAM. Also a context manager; close it to free the memory.

    Args:
        config: of the accelerator; ``dram_latency`` and ``dram_bytes_per_cycle`` are the DRAM's
        verilog: design to simulate instead of the accelerator (same AXI ports and ``engine_done_*`` signals)
        dram_bytes: size of the DRAM, at address 0; accesses beyond it get DECERR
        dram_model: of the DRAM and of the ports to it, or the name of one in ``DRAM_MODELS``
        stall: probability that a channel pauses in a cycle
        seed: of the pauses
        named: False: ``verilog`` is a netlist, in which memories and completion counts have no names
        trace: build with waveforms (see ``trace``), slower
        quiet: no message when it has to be built

    Attributes:
        dram: uint8[dram_bytes], shared with the model
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        verilog: str | None = None,
        dram_bytes: int = 64 << 20,
        dram_model: str | DramModel = "plain",
        stall: float = 0.0,
        seed: int = 0,
        named: bool = True,
        trace: bool = False,
        quiet: bool = False,
    ):
        check_stall(stall)
        options = find_dram_model(dram_model).options(config, stall, seed)
        self.config = config
        library = build_library(
            verilog or accelerator_verilog(config),
            masters=config.axi_masters,
            axi_bytes=config.axi_bytes,
            trace=trace,
            named=named,
            quiet=quiet,
        )
        self._library = _load(library)
        self.dram = np.zeros(dram_bytes, np.uint8)
        self._handle = self._library.em_create(self.dram.ctypes.data, dram_bytes, ctypes.byref(options))
        table = ctypes.POINTER(_MemoryRow)()
        count = self._library.em_memories(self._handle, ctypes.byref(table))
        self._memories = {row.name.decode(): (row.data, row.width, row.depth, row.stride) for row in table[:count]}

    def close(self) -> None:
        if self._handle:
            self._library.em_destroy(self._handle)
            self._handle = None

    def __enter__(self) -> VerilatedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    # Registers

    def read_word(self, offset: int) -> int:
        """32 bits of the register map; takes some cycles."""
        word = ctypes.c_uint32()
        if self._library.em_read(self._handle, offset, ctypes.byref(word)):
            raise ModelError(f"reading register {offset:#05x} was not answered")
        return word.value

    def write_word(self, offset: int, value: int) -> None:
        """Write 32 bits of the register map; takes some cycles."""
        if self._library.em_write(self._handle, offset, value):
            raise ModelError(f"writing register {offset:#05x} was not answered")

    def read_reg(self, name: str, index: int = 0) -> int:
        """Value of a register, of both words where it is wide; takes some cycles."""
        register = regs.find(name)
        return sum(self.read_word(register.offset + 4 * (index + i)) << 32 * i for i in range(register.words))

    def read_field(self, name: str, field: str) -> int:
        """Value of one field of a register."""
        layout = next(f for f in regs.find(name).fields if f.name == field)
        return self.read_reg(name) >> layout.lsb & ((1 << layout.width) - 1)

    def write_reg(self, name: str, value: int) -> None:
        """Write a register, both words where it is wide; takes some cycles."""
        register = regs.find(name)
        if not 0 <= value < 1 << register.width:
            raise ValueError(f"{name} must be between 0 and {(1 << register.width) - 1}, not {value}")
        for i in range(register.words):
            self.write_word(register.offset + 4 * i, value >> 32 * i & 0xFFFF_FFFF)

    # Running

    @property
    def cycles(self) -> int:
        """Clock cycles since creation, register accesses included (the CYCLES register counts a program's own)."""
        result: int = self._library.em_cycles(self._handle)
        return result

    def run(self, max_cycles: int, watch: Mapping[str, int] | None = None) -> Stop:
        """Run until the interrupt, ``max_cycles``, or until an engine has finished as many commands as ``watch``
        names for it (``{"MATMUL": 12}``; 0 watches nothing).

        Raises:
            BusViolation: the accelerator broke a rule of AXI
        """
        watch = watch or {}
        if unknown := set(watch) - set(Engine.__members__):
            raise ValueError(f"watch must name {', '.join(Engine.__members__)}, not {', '.join(sorted(unknown))}")
        values = (ctypes.c_uint16 * len(Engine))(*(watch.get(engine.name, 0) for engine in Engine))
        reason = self._library.em_run(self._handle, max_cycles, values)
        if violation := self._library.em_violation(self._handle):
            raise BusViolation(violation.decode())
        return Stop(reason)

    def done(self) -> dict[str, int]:
        """Commands of the program that each engine has finished; takes no cycles, unlike the DONE registers."""
        counts = (ctypes.c_uint16 * len(Engine))()
        self._library.em_done(self._handle, counts)
        return dict(zip(Engine.__members__, counts, strict=True))

    def start(
        self,
        address: int,
        commands: int,
        *,
        weights: int = 0,
        input: int = 0,
        output: int = 0,
        watchdog: int = 0,
        sizes: Mapping[Base, int] = MappingProxyType({}),
    ) -> None:
        """Set the program, the regions of DRAM (without limit unless ``sizes`` has one), and start with the interrupt
        enabled."""
        unlimited = (1 << SIZE_BITS) - 1
        for name, value in (
            *((f"SIZE_{base.name}", sizes.get(base, unlimited)) for base in Base),
            ("PROGRAM_ADDR", address),
            ("PROGRAM_COMMANDS", commands),
            ("BASE_WEIGHTS", weights),
            ("BASE_INPUT", input),
            ("BASE_OUTPUT", output),
            ("WATCHDOG", watchdog),
        ):
            self.write_reg(name, value)
        self.write_reg("CONTROL", 0b101)
        self.await_launch()

    def await_launch(self) -> None:
        """Until a just started program counts its own completions."""
        for _ in range(16):  # the counters of an earlier program are cleared long before the first command is fetched
            if not any(self.done().values()):
                return
            self.run(1)
        raise ModelError("the engines' completion counters were not cleared at the start of the program")

    def finish(self, max_cycles: int) -> None:
        """Run a started program to its end and acknowledge the interrupt.

        Raises:
            ProgramTimeout: it did not end within ``max_cycles``
            ProgramError: it was stopped
            BusViolation: the accelerator broke a rule of AXI
        """
        if self.run(max_cycles) is not Stop.IRQ:
            raise ProgramTimeout(
                f"the program did not end within {max_cycles} cycles; finished commands: "
                + ", ".join(f"{e.name} {self.read_reg(f'DONE_{e.name}')}" for e in Engine)
            )
        self.write_reg("STATUS", 1 << 3)
        if self.read_field("STATUS", "error"):
            raise ProgramError(regs.ErrorCode(self.read_reg("ERROR_CODE")), self.read_reg("ERROR_COMMAND"))

    def soft_reset(self, max_cycles: int = 100_000) -> None:
        """Stop whatever runs and wait until the bus is quiet.

        Raises:
            ModelError: transfers stay unanswered
        """
        self.write_reg("CONTROL", 0b010)
        end = self.cycles + max_cycles
        while self.read_field("STATUS", "busy"):
            if self.cycles >= end:
                raise ModelError(f"still busy {max_cycles} cycles after a soft reset: transfers are not answered")
            self.run(50)

    # DRAM and memories

    def bus_bytes(self) -> tuple[list[int], list[int]]:
        """Bytes read and bytes written by each master since creation."""
        masters = self.config.axi_masters
        reads, writes = (ctypes.c_uint64 * masters)(), (ctypes.c_uint64 * masters)()
        self._library.em_beats(self._handle, reads, writes)
        return [n * self.config.axi_bytes for n in reads], [n * self.config.axi_bytes for n in writes]

    def inject(self, kind: str, address_range: Sequence[int] | None) -> None:
        """Make the DRAM answer ``[begin, end)`` with SLVERR (``read_error``, ``write_error``) or not at all
        (``hang``); None ends that."""
        kinds = ("read_error", "write_error", "hang")
        if kind not in kinds:
            raise ValueError(f"kind must be one of {', '.join(kinds)}, not {kind!r}")
        begin, end = address_range or (0, 0)
        self._library.em_inject(self._handle, kinds.index(kind), begin, end)

    def memories(self) -> dict[str, Memory]:
        """Every on-chip memory by instance path, FIFOs included."""
        return {name: Memory(width, depth) for name, (_, width, depth, _) in self._memories.items()}

    def peek(self, name: str) -> npt.NDArray[Any]:
        """Copy of an on-chip memory: uint8[depth, ceil(width / 8)], least significant byte first; takes no cycles."""
        if name not in self._memories:
            raise KeyError(f"memory must be one of {', '.join(self._memories)}, not {name!r}")
        address, width, depth, stride = self._memories[name]
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * (depth * stride)).from_address(address))
        return raw.reshape(depth, stride)[:, : -(-width // 8)].copy()

    def trace(self, path: Path | None, limit: int = (1 << 64) - 1) -> None:
        """Write a VCD waveform from now on to ``path``; None ends it. Needs ``trace=True`` at creation.

        Args:
            path: file
            limit: bytes at which it ends by itself, or soon after
        """
        failed = self._library.em_trace(self._handle, None if path is None else str(path).encode(), limit)
        if failed and path is not None:
            raise ModelError(f"cannot write waveforms to {path}; the model needs trace=True, and the folder must exist")

    @property
    def trace_full(self) -> bool:
        """Whether the last waveform has ended at its limit."""
        return bool(self._library.em_trace_full(self._handle))
