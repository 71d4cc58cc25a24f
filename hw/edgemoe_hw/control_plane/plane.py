"""Everything between the AXI ports and the compute side."""

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, ResetInserter, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.bus.axi import AxiLiteSignature, AxiSignature
from edgemoe_hw.bus.axi_lite import RegisterFile
from edgemoe_hw.bus.axi_ports import ReadPort, WritePort
from edgemoe_hw.bus.bursts import AXI4_BEATS
from edgemoe_hw.control_plane.command_queue import CommandQueue
from edgemoe_hw.control_plane.counters import COUNTS, Counters
from edgemoe_hw.control_plane.expert_loads import ExpertLoads
from edgemoe_hw.control_plane.sequencer import Sequencer
from edgemoe_hw.control_plane.supervisor import Supervisor
from edgemoe_hw.engines.load import DmaRead
from edgemoe_hw.engines.store import DmaWrite
from edgemoe_hw.interfaces import REGIONS, EngineStatus, beat_layout, queued_layout
from edgemoe_hw.layouts import ENGINE_PAYLOADS
from edgemoe_hw.ports import SharedRead
from edgemoe_hw.primitives.delay import copies
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_BITS
from edgemoe_hw.spec.isa import Base, Engine

__all__ = ["ControlPlane"]

_OUTSIDE = [engine for engine in Engine if engine not in (Engine.LOAD, Engine.STORE)]  # on the compute side
_FETCH_CLIENT, _LOAD_CLIENT = 0, 1  # of master 0's read port; the program goes first


class ControlPlane(wiring.Component):
    """Registers, sequencer, command queues, DMA engines and counters.

    Args:
        burst_beats: of the longest burst

    Members:
        s_axi: AXI4-Lite slave (``regs``)
        m<i>_axi: AXI4 masters; the program, NORM, ACTIVATION and all writes use master 0
        irq: level, STATUS.irq while CONTROL.irq_enable
        beats: loaded data, one stream a master (``interfaces.beat_layout``). ``done`` counts a LOAD two cycles after
            its last beat was accepted, and a waiting command starts one cycle later at the earliest
        store_read: residual rows for the STORE engine
        matmul, norm: commands whose waits are over (``interfaces.queued_layout``)
        status: of the compute side
        reset_engines: the compute side must reset its control state, through one more register as the units here do;
            before each program, and when one is stopped
    """

    def __init__(self, config: AcceleratorConfig, burst_beats: int = AXI4_BEATS):
        self._config, self._burst_beats = config, burst_beats
        super().__init__(
            {
                "s_axi": In(AxiLiteSignature()),
                **{f"m{i}_axi": Out(AxiSignature(config.axi_bytes)) for i in range(config.axi_masters)},
                "irq": Out(1),
                "beats": Out(stream.Signature(beat_layout(config))).array(config.axi_masters),
                "store_read": Out(SharedRead(16 * config.epilogue_lanes)),
                **{
                    engine.name.lower(): Out(stream.Signature(queued_layout(ENGINE_PAYLOADS[engine])))
                    for engine in _OUTSIDE
                },
                "status": In(EngineStatus(config)),
                "reset_engines": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.registers = registers = RegisterFile()
        wiring.connect(m, wiring.flipped(self.s_axi), registers.s_axi)
        m.submodules.supervisor = supervisor = Supervisor(sources=4)
        m.submodules.counters = counters = Counters(config)
        beats = self._burst_beats
        sequencer = Sequencer(config, beats)
        load, store = DmaRead(config, burst_beats=beats), DmaWrite(config, burst_beats=beats)
        queues = {
            engine: CommandQueue(payload, max_experts=config.max_experts) for engine, payload in ENGINE_PAYLOADS.items()
        }
        stopped = {"sequencer": sequencer, "load": load, "store": store}
        stopped |= {f"queue_{engine.name.lower()}": queue for engine, queue in queues.items()}
        m.d.sync += self.reset_engines.eq(supervisor.reset)
        abort, *resets = copies(m, self.reset_engines, 1 + len(stopped), "reset")
        for (name, unit), reset in zip(stopped.items(), resets, strict=True):
            m.submodules[name] = ResetInserter(reset)(unit)

        outputs = {Engine.LOAD: load.commands, Engine.STORE: store.commands}
        finished = {Engine.LOAD: load.done, Engine.STORE: store.done}
        for outside in _OUTSIDE:
            outputs[outside] = wiring.flipped(getattr(self, outside.name.lower()))
            finished[outside] = self.status.done[outside]
        done = {engine: queue.done for engine, queue in queues.items()}
        for engine, queue in queues.items():
            wiring.connect(m, sequencer.dispatch[engine], queue.commands)
            wiring.connect(m, queue.output, outputs[engine])
            m.d.comb += [
                queue.finished.eq(finished[engine]),
                *(queue.all_done[other].eq(count) for other, count in done.items()),
                *(port.eq(count) for port, count in zip(queue.expert_counts, self.status.expert_counts, strict=True)),
                sequencer.done[engine].eq(done[engine]),
            ]

        idle, reads, wrote = self._bus(m, sequencer, load, store, abort)
        self._supervise(m, registers, supervisor, sequencer, load, store)
        moving = self._count(m, registers, supervisor, counters, sequencer, queues[Engine.MATMUL], done, reads, wrote)
        self._expert_loads(m, registers, supervisor)
        m.d.sync += supervisor.bus_idle.eq(idle)
        m.d.comb += supervisor.progress.eq(moving)
        return m

    def _bus(
        self, m: Module, sequencer: Sequencer, load: DmaRead, store: DmaWrite, abort: Signal
    ) -> tuple[Value, Value, Value]:
        """Connects the masters; returns (nothing outstanding, beats read, beat written)."""
        ports = []
        reads = []
        for number in range(self._config.axi_masters):
            axi = getattr(self, f"m{number}_axi")
            clients = 2 if number == 0 else 1
            m.submodules[f"read{number}"] = port = ReadPort(self._config, clients=clients)
            ports.append(port)
            wiring.connect(m, port.ar, wiring.flipped(axi.ar))
            wiring.connect(m, wiring.flipped(axi.r), port.r)
            client = _LOAD_CLIENT if number == 0 else 0
            wiring.connect(m, load.requests[number], port.requests[client])
            wiring.connect(m, port.responses[client], load.responses[number])
            wiring.connect(m, load.beats[number], wiring.flipped(self.beats[number]))
            reads.append(axi.r.valid & axi.r.ready)
        wiring.connect(m, sequencer.request, ports[0].requests[_FETCH_CLIENT])
        wiring.connect(m, ports[0].responses[_FETCH_CLIENT], sequencer.response)

        axi = self.m0_axi
        m.submodules.write = write = WritePort(self._config)
        wiring.connect(m, write.aw, wiring.flipped(axi.aw))
        wiring.connect(m, write.w, wiring.flipped(axi.w))
        wiring.connect(m, wiring.flipped(axi.b), write.b)
        wiring.connect(m, store.requests, write.request)
        wiring.connect(m, store.data, write.data)
        wiring.connect(m, store.read, wiring.flipped(self.store_read))
        both: list[ReadPort | WritePort] = [*ports, write]
        m.d.comb += [
            store.outstanding.eq(write.outstanding),
            store.failed.eq(write.failed),
            *(port.abort.eq(abort) for port in both),
        ]
        return Cat(port.idle for port in both).all(), Cat(reads), axi.w.valid & axi.w.ready

    def _supervise(
        self,
        m: Module,
        registers: RegisterFile,
        supervisor: Supervisor,
        sequencer: Sequencer,
        load: DmaRead,
        store: DmaWrite,
    ) -> None:
        regions = Signal(REGIONS)
        for base in Base:
            m.d.comb += [
                regions[base].base.eq(getattr(registers, f"base_{base.name.lower()}")),
                regions[base].size.eq(getattr(registers, f"size_{base.name.lower()}")),
            ]
        m.d.comb += [
            registers.id.eq(regs.ID),
            registers.isa_version.eq(ISA_VERSION),
            registers.config_hash.eq(self._config.hash32),
            registers.status_busy.eq(supervisor.busy),
            registers.status_done.eq(supervisor.done),
            registers.status_error.eq(supervisor.error),
            registers.status_irq.eq(supervisor.irq),
            registers.error_code.eq(supervisor.error_code),
            registers.error_command.eq(supervisor.error_command),
            supervisor.start.eq(registers.control_start),
            supervisor.soft_reset.eq(registers.control_soft_reset),
            supervisor.irq_clear.eq(registers.status_irq_clear),
            supervisor.watchdog_limit.eq(registers.watchdog),
            supervisor.finished.eq(sequencer.finished),
            supervisor.index.eq(sequencer.index),
            sequencer.launch.eq(supervisor.launch),
            sequencer.address.eq(registers.program_addr),
            sequencer.length.eq(registers.program_commands),
            load.regions.eq(regions),
            store.regions.eq(regions),
            self.irq.eq(supervisor.irq & registers.control_irq_enable),
        ]
        for port, error in zip(
            supervisor.errors, (self.status.error, load.error, store.error, sequencer.error), strict=True
        ):
            m.d.comb += port.eq(error)

    def _expert_loads(self, m: Module, registers: RegisterFile, supervisor: Supervisor) -> None:
        m.submodules.expert_loads = history = ExpertLoads(self._config)
        m.d.comb += [
            history.start.eq(supervisor.launch),
            history.clear.eq(self.status.gate_clear),
            history.block.eq(registers.moe_block),
            registers.moe_blocks.eq(history.blocks),
        ]
        for expert, count in enumerate(self.status.expert_counts):
            m.d.comb += [
                history.counts[expert].eq(count),
                registers.expert_count[expert].eq(count),
                registers.expert_load[expert].eq(history.loads[expert]),
            ]

    def _count(
        self,
        m: Module,
        registers: RegisterFile,
        supervisor: Supervisor,
        counters: Counters,
        sequencer: Sequencer,
        matmul_queue: CommandQueue,
        done: Mapping[Engine, Value],
        reads: Value,
        wrote: Value,
    ) -> Value:
        """Connects the counters; returns whether anything moved a cycle ago."""
        changed = []
        for engine, count in done.items():
            # Keeps its last value when a stopped program resets the engines. The simulator watches it by name.
            engine_done = Signal(COUNT_BITS, name=f"engine_done_{engine.name.lower()}")
            with m.If(supervisor.running | supervisor.launch):
                m.d.sync += engine_done.eq(count)
            m.d.comb += getattr(registers, f"done_{engine.name.lower()}").eq(engine_done)
            changed.append(supervisor.running & (engine_done != count))
        array = self.status.array
        wiring.connect(m, wiring.flipped(array), counters.array)
        m.d.comb += [
            counters.clear.eq(supervisor.launch),
            counters.running.eq(supervisor.running),
            counters.blocked.eq(matmul_queue.blocked),
            counters.empty.eq(matmul_queue.empty),
            counters.ending.eq(sequencer.ending),
            counters.reads.eq(reads),
            counters.writes.eq(wrote),
            counters.finished.eq(Cat(changed)),
            *(getattr(registers, name).eq(getattr(counters, f"count_{name}")) for name in COUNTS),
        ]
        moved = Signal(len(changed) + len(reads) + 2)
        m.d.sync += moved.eq(Cat(changed, reads, wrote, ~array.idle))
        return moved.any()
