"""The control plane with memories and engines just good enough to test it: what the benches of the bus side run."""

import functools

import numpy as np
from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.bus.axi import AxiLiteSignature, AxiSignature
from edgemoe_hw.control_plane.plane import ControlPlane
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.isa import Begin, End, Engine, EnginePayload, Header, Load, encode
from edgemoe_hw.spec.isa import Memory as MemoryId
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.timing import RESIDUAL_READ
from edgemoe_hw.verilog import generate

__all__ = [
    "ControlBench",
    "SMALL",
    "SMALL_FOUR",
    "SMALL_WIDE",
    "Command",
    "assemble",
    "bench_verilog",
    "loaded",
    "stored",
]

Command = tuple[EnginePayload, Header]

_SMALL = {
    "weight_depth": 16,
    "act_depth": 64,
    "residual_depth": 256,
    "score_depth": 16,
    "param_depth": 32,
    "max_dim": 16,
    "max_experts": 4,
}
SMALL = AcceleratorConfig(name="small", **_SMALL)
SMALL_WIDE = AcceleratorConfig(
    name="small-wide", lanes_k=32, lanes_n=32, epilogue_lanes=16, norm_lanes=4, axi_masters=2, axi_bytes=16, **_SMALL
)
# Four masters load weights and parameters, two of them residual rows, one activations.
SMALL_FOUR = AcceleratorConfig(
    name="small-four", lanes_k=16, lanes_n=32, epilogue_lanes=16, norm_lanes=4, axi_masters=4, axi_bytes=16, **_SMALL
)


@functools.cache
def bench_verilog(config: AcceleratorConfig) -> str:
    """Verilog of ``ControlBench``."""
    return generate(config, ControlBench(config))


def assemble(config: AcceleratorConfig, body: list[Command], **begin: int) -> np.ndarray:
    """Bytes of a program: BEGIN (its fields overridden by ``begin``), ``body``, END."""
    fields = {"isa_version": ISA_VERSION, "config_hash": config.hash32, "commands": len(body) + 2, **begin}
    program = [encode(Begin(**fields)), *(encode(*command) for command in body), encode(End())]
    return np.frombuffer(b"".join(program), np.uint8)


def loaded(config: AcceleratorConfig, dram: np.ndarray, load: Load, base: int, master: int) -> np.ndarray:
    """What a LOAD brings to one master: uint8[rows, beats * axi_bytes]."""
    row_bytes = slice_beats(config)[load.memory] * config.axi_bytes
    start = base + load.offset + master * load.plane_stride
    return dram[start : start + load.rows * row_bytes].reshape(-1, row_bytes)


def stored(config: AcceleratorConfig, slices: list[np.ndarray], row: int, rows: int) -> np.ndarray:
    """What a STORE writes, from the masters' slices of the residual memory (uint8[depth, beats * axi_bytes])."""
    return np.concatenate([part[row : row + rows] for part in slices], axis=1).ravel()


class ControlBench(wiring.Component):
    """``ControlPlane`` between memories and two engines that do nothing for ``tokens`` cycles a command.

    Memory ``load_<memory>_m<master>`` holds that master's slice of each row, beat after beat, rows padded to a power
    of two beats; a STORE reads the residual scratchpad. Expert e has ``e`` tokens: expert 0's queue is empty.
    ``memory_stall`` (input, so that a bench can toggle it) makes all memories refuse access. ``witness`` depends on all
    memories, so that none is optimised away.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "s_axi": In(AxiLiteSignature()),
                **{f"m{i}_axi": Out(AxiSignature(config.axi_bytes)) for i in range(config.axi_masters)},
                "irq": Out(1),
                "memory_stall": In(1),
                "witness": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.control = control = ControlPlane(config)
        wiring.connect(m, wiring.flipped(self.s_axi), control.s_axi)
        for i in range(config.axi_masters):
            wiring.connect(m, getattr(control, f"m{i}_axi"), wiring.flipped(getattr(self, f"m{i}_axi")))
        witness = Signal(range(max(memory_depths(config).values())))
        m.d.sync += witness.eq(control.store_read.row)
        memories = [self._memories(m, control.beats[i], i, witness) for i in range(config.axi_masters)]
        residual = [of_master[MemoryId.RESIDUAL] for of_master, _ in memories if MemoryId.RESIDUAL in of_master]
        row_bits = (slice_beats(config)[MemoryId.RESIDUAL] - 1).bit_length()
        ports = [memory.read_port() for memory in residual for _ in range(1 << row_bits)]
        m.d.comb += [
            self.irq.eq(control.irq),
            self.witness.eq(Cat(bits for _, bits in memories).xor()),
            control.store_read.ready.eq(~self.memory_stall),
            control.store_read.data.eq(delay(m, Cat(port.data for port in ports), RESIDUAL_READ - 1, "read")),
            *(count.eq(expert) for expert, count in enumerate(control.status.expert_counts)),
            *(
                port.addr.eq((control.store_read.row << row_bits) | (i % (1 << row_bits)))
                for i, port in enumerate(ports)
            ),
        ]
        self._engine(m, control.norm, control.status.done[Engine.NORM], control.reset_engines)
        busy = self._engine(m, control.matmul, control.status.done[Engine.MATMUL], control.reset_engines)
        m.d.comb += [control.status.array.busy.eq(busy), control.status.array.idle.eq(~busy)]
        return m

    def _memories(self, m, beats, master, witness):
        """Memories of one master by name, and bits that depend on all of them."""
        depths = memory_depths(self._config)
        m.d.comb += beats.ready.eq(~self.memory_stall)
        memories = {}
        bits = []
        for memory_id, count in slice_beats(self._config).items():
            if master >= self._config.load_masters(memory_id.name):
                continue
            beat_bits = (count - 1).bit_length()
            memory = Memory(shape=unsigned(8 * self._config.axi_bytes), depth=depths[memory_id] << beat_bits, init=[])
            m.submodules[f"load_{memory_id.name.lower()}_m{master}"] = memories[memory_id] = memory
            port = memory.write_port()
            read = memory.read_port()
            bits.append(read.data.xor())
            m.d.comb += [
                port.addr.eq((beats.payload.row << beat_bits) | beats.payload.beat),
                port.data.eq(beats.payload.data),
                port.en.eq(beats.valid & beats.ready & (beats.payload.memory == memory_id)),
                read.addr.eq(witness),
            ]
        return memories, Cat(bits)

    def _engine(self, m, commands, done, reset):
        """An engine that is busy for ``tokens`` cycles; returns whether it is."""
        left = Signal(12)
        command = commands.payload
        m.d.comb += commands.ready.eq(left == 0)
        with m.If(commands.valid & commands.ready):
            m.d.sync += left.eq(command.payload.tokens + 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
            m.d.comb += done.eq(left == 1)
        with m.If(reset):
            m.d.sync += left.eq(0)
        return left > 1
