"""The accelerator's driver: identity, memory, start, wait, errors. Knows registers and buffers, no platform."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import warnings

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, BundleError, Joined, Joint, Task
from edgemoe.errors import DeviceError
from edgemoe.layout import gather_outputs
from edgemoe.runtime.executor import (
    Cancelled,
    DeviceTimeout,
    Executor,
    Measured,
    ProgramStopped,
)
from edgemoe.runtime.memory import BundleMemory
from edgemoe.runtime.packing import ImagePacker
from edgemoe.runtime.platforms.base import Platform
from edgemoe.runtime.platforms.registers import Registers, mask
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import ISA_VERSION, PRESETS
from edgemoe_hw.spec.disassembler import disassemble
from edgemoe_hw.spec.isa import Engine, EnginePayload, decode_program
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer.reference import run_head
from edgemoe_models.model_image import ModelImage

__all__ = ["Driver"]

_BUSY, _DONE, _ERROR, _IRQ = (mask("STATUS", name) for name in ("busy", "done", "error", "irq"))
_START, _SOFT_RESET, _IRQ_ENABLE = (mask("CONTROL", name) for name in ("start", "soft_reset", "irq_enable"))
#: Errors that may be gone the next time; the others are the program's own.
_TRANSIENT = (regs.ErrorCode.READ_BUS, regs.ErrorCode.WRITE_BUS, regs.ErrorCode.WATCHDOG)
_TIMEOUT, _MARGIN = 1.0, 20  # seconds, and times the compiler's estimate: then a program is given up
_RESET_TIMEOUT, _RESET_POLL, _RESET_POLLS = 0.01, 1e-5, 20  # seconds, each poll's, and the fewest: a host may pause
_POLLS = 50  # a program's estimated time is divided into as many polls, within these limits:
_SHORTEST_POLL, _LONGEST_POLL = 2e-5, 1e-3
_INTERRUPT_WAIT = 0.05  # longest sleep, so that a closed stream is noticed


class Driver(Executor):
    """Runs a bundle's programs on the accelerator of a platform. Weights and programs are loaded once.

    Args:
        platform: the accelerator; ``close`` closes it too
        bundle: what to run
        depth: input and output buffers each; 2 let the host work while the accelerator does
        timeout: seconds (of ``platform.now``) after which a program is given up; default: 1, and 20 times its estimate
        watchdog: cycles without progress after which the accelerator stops a program itself; 0: never
        retries: times that a program is started again after a bus error, a watchdog's stop or a timeout
        interrupt: wait for the interrupt instead of polling

    Attributes:
        platform: the accelerator
        timeout: as above; it may be changed
        memory: where everything is in the accelerator's memory

    Raises:
        BundleError: the bundle is for another configuration or ISA version; the message has both values
        DeviceInUse: the accelerator has a driver, here or in another process; it has not been touched
        DeviceError: there is no accelerator, it does not become idle, or memory is short
    """

    def __init__(
        self,
        platform: Platform,
        bundle: Bundle,
        *,
        depth: int = 2,
        timeout: float | None = None,
        watchdog: int = 1_000_000,
        retries: int = 0,
        interrupt: bool = False,
    ) -> None:
        limit = 1 << regs.find("WATCHDOG").width
        if depth < 1 or retries < 0 or (timeout is not None and timeout <= 0) or not 0 <= watchdog < limit:
            raise ValueError(
                f"depth must be at least 1, retries at least 0, timeout above 0, watchdog at least 0 and "
                f"below {limit}, not {depth!r}, {retries!r}, {timeout!r} and {watchdog!r}"
            )
        self.name, self.bundle, self.depth = platform.name, bundle, depth
        self.platform, self._registers, self._packer = platform, Registers(platform), ImagePacker(bundle)
        self.timeout, self._watchdog, self._retries, self._interrupt = timeout, watchdog, retries, interrupt
        if interrupt and not platform.has_interrupt:
            raise DeviceError(f"device {platform.name} has no interrupt; open it with interrupt=False")
        self._must_reset = True
        self._closed = False
        self._failure = ""  # of the last program, where it failed
        self._graph: IntegerGraph | None = None  # read when a task needs it
        platform.lock.claim()
        try:
            check_identity(self._registers, bundle, platform.name)
            self.reset()  # a program that a killed process has left must end before its memory is used again
            self.memory = BundleMemory(platform, bundle, depth)
            for base, size in self.memory.sizes.items():
                self._registers.write(f"SIZE_{base.name}", size)
        except BaseException:
            platform.lock.unclaim()
            raise

    def pack(self, source: int, image: ModelImage, place: int = 0) -> None:
        buffer, size = self.memory.inputs[source], self.bundle.input_bytes
        self._packer.pack(image, buffer.array[place * size : (place + 1) * size])
        buffer.flush()

    def unpack(self, program: str | Joined, target: int, sequence: int = 0) -> npt.NDArray[np.int16]:
        info, buffer = self.bundle.program(program), self.memory.outputs[target]
        task, parts = info.heads[sequence]
        buffer.invalidate()
        rows = gather_outputs(parts, buffer.array, *self.bundle.model.device_outputs(task))
        if not self.bundle.model.task(task).is_finished_by_host:
            return rows
        if self._graph is None:
            self._graph = self.bundle.graph()
        finished: npt.NDArray[np.int16] = run_head(self._graph, rows[None], task)[0].astype(np.int16)
        return finished

    def clear(self, target: int) -> None:
        """Zero an output slot, so that what a program fails to write is seen; for checks."""
        self.memory.outputs[target].array[:] = 0
        self.memory.outputs[target].flush()

    def execute(
        self, program: str | Joined, source: int, target: int, cancel: threading.Event | None = None, *, first: int = 0
    ) -> Measured:
        for attempt in itertools.count(1):
            try:
                wall, begin = time.perf_counter(), self.platform.now()
                self.start(program, source, target, first)
                self.finish(program, cancel)
                seconds, wall = self.platform.now() - begin, time.perf_counter() - wall
                return Measured(seconds, wall, self._registers.read("CYCLES"), self._expert_loads(), attempt)
            except (ProgramStopped, DeviceTimeout) as error:
                self._failure = str(error)
                transient = not isinstance(error, ProgramStopped) or error.code in _TRANSIENT
                if attempt > self._retries or not transient:
                    raise
        raise AssertionError("unreachable")

    def start(self, program: str | Joined, source: int, target: int, first: int = 0) -> None:
        """Start a program; nothing may be running. Switching tasks is the program's address, nothing else."""
        if self._closed:
            raise DeviceError(f"device {self.name} is closed; open it again")
        self.platform.lock.check()
        info, size = self.bundle.program(program), self.bundle.input_bytes
        if self._must_reset:
            self.reset()
        self._must_reset = True  # until it is known to have ended
        for name, value in (
            ("PROGRAM_ADDR", self.memory.programs[info.joined.key].physical_address),
            ("PROGRAM_COMMANDS", info.commands),
            ("BASE_WEIGHTS", self.memory.weights.physical_address),
            ("BASE_INPUT", self.memory.inputs[source].physical_address + first * size),
            ("SIZE_INPUT", info.joined.images * size),
            ("BASE_OUTPUT", self.memory.outputs[target].physical_address),
            ("WATCHDOG", self._watchdog),
            ("CONTROL", _START | (_IRQ_ENABLE if self._interrupt else 0)),
        ):
            self._registers.write(name, value)

    def finish(self, program: str | Joined, cancel: threading.Event | None = None) -> None:
        """Wait for the end of a started program; raises as ``execute``."""
        info = self.bundle.program(program)
        estimate = info.estimated_cycles / (self.platform.clock_mhz * 1e6)
        limit = _TIMEOUT + _MARGIN * estimate if self.timeout is None else self.timeout
        pause = _INTERRUPT_WAIT if self._interrupt else min(max(estimate / _POLLS, _SHORTEST_POLL), _LONGEST_POLL)
        end = self.platform.now() + limit
        while True:
            late = self.platform.now() >= end  # before the status, so that a late host still sees a timely end
            status = self._registers.read("STATUS")
            if status & _ERROR or not status & _BUSY:  # busy with an error: its transfers may never be answered
                break
            if late:
                raise DeviceTimeout(
                    f"device {self.name}: {info.joined} did not end within {limit:.3g} s; {self._progress(info)}"
                )
            if cancel is not None and cancel.is_set():
                self.reset()
                raise Cancelled(f"device {self.name}: {info.joined} was given up")
            self.platform.wait(min(pause, limit))
        self._acknowledge(info, status)

    def _acknowledge(self, info: Task | Joint, status: int) -> None:
        """Clear the interrupt of a program that has ended; raises ProgramStopped if an error ended it."""
        self._registers.write("STATUS", _IRQ)
        if status & _ERROR:
            command = self._registers.read("ERROR_COMMAND")
            raise ProgramStopped(self._error_code(), command, self._describe(info, command))
        if not status & _DONE:
            raise DeviceError(
                f"device {self.name}: {info.joined} was not run: the accelerator was reset meanwhile, "
                f"perhaps by another process"
            )
        self._must_reset = False

    def _error_code(self) -> regs.ErrorCode:
        code = self._registers.read("ERROR_CODE")
        try:
            return regs.ErrorCode(code)
        except ValueError:
            raise DeviceError(
                f"device {self.name}: unknown error code {code}; is its overlay newer than this edgemoe?"
            ) from None

    def _describe(self, info: Task | Joint, command: int) -> str:
        """A command as text."""
        with contextlib.suppress(ValueError, IndexError):  # the program itself may be what is wrong
            lines = itertools.islice(disassemble(info.program, [phase.name for phase in info.phases]), command, None)
            return f"{info.joined}: {' '.join(next(lines, '').split())}"
        return str(info.joined)

    def _progress(self, info: Task | Joint) -> str:
        """How far a program is that does not end: error code, commands finished, and the one it waits for."""
        done = {engine: self._registers.read(f"DONE_{engine.name}") for engine in Engine}
        text = (
            f"error code {self._error_code().name}; of its {info.commands} commands these have finished: "
            + ", ".join(f"{count} {engine.name}" for engine, count in done.items())
        )
        with contextlib.suppress(ValueError):
            for number, (_, payload) in enumerate(decode_program(info.program)):  # engines finish theirs in order
                if isinstance(payload, EnginePayload):
                    done[payload.engine] -= 1
                    if done[payload.engine] < 0:
                        return f"{text}; the first that has not: command {number} ({self._describe(info, number)})"
        return text

    def _expert_loads(self) -> dict[int, tuple[int, ...]]:
        model = self.bundle.model
        known = self._registers.read("MOE_BLOCKS")
        loads = {}
        for index, block in enumerate([block for block in range(model.depth) if model.is_moe(block)][:known]):
            self._registers.write("MOE_BLOCK", index)
            loads[block] = tuple(self._registers.read("EXPERT_LOAD", expert) for expert in range(model.num_experts))
        return loads

    @property
    def clock_mhz(self) -> float:
        return self.platform.clock_mhz

    def power(self) -> dict[str, float]:
        return self.platform.power()

    def reset(self) -> None:
        self.platform.lock.check()
        self._registers.write("CONTROL", _SOFT_RESET)
        end, polls = self.platform.now() + _RESET_TIMEOUT, 0
        while self._registers.read("STATUS") & _BUSY:
            polls += 1
            if polls > _RESET_POLLS and self.platform.now() >= end:
                why = f" (the reset was because: {self._failure})" if self._failure else ""
                raise DeviceError(
                    f"device {self.name} is still busy {_RESET_TIMEOUT} s after a soft reset: memory "
                    f"does not answer its transfers; load the overlay again{why}"
                )
            self.platform.wait(_RESET_POLL)
        self._must_reset, self._failure = False, ""

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.platform.lock.is_lost:  # the process that has opened it goes on using it
            return
        try:
            if self._registers.read("STATUS") & _BUSY:
                self.reset()
        except DeviceError as error:  # what it may still write to must not become somebody else's memory
            warnings.warn(f"{error}; its buffers stay allocated until the process ends", ResourceWarning, stacklevel=2)
        else:
            self.memory.free()
        self.platform.close()
        self.platform.lock.release()


def check_identity(registers: Registers, bundle: Bundle, device: str) -> None:
    """Refuse what is no accelerator, or not the bundle's.

    Raises:
        DeviceError: the ID is not edgemoe's
        BundleError: ISA version or configuration differ
    """
    found = registers.read("ID")
    if found != regs.ID:
        raise DeviceError(
            f"device {device}: register ID is {found:#010x}, not {regs.ID:#010x}: there is no edgemoe "
            f"accelerator at this address; load its overlay first"
        )
    version = registers.read("ISA_VERSION")
    if version != ISA_VERSION:
        raise BundleError(
            f"the bundle has ISA version {ISA_VERSION}, device {device} has {version}; load the overlay "
            f"that this edgemoe builds, or compile the model with the edgemoe that built the device"
        )
    found = registers.read("CONFIG_HASH")
    if found != bundle.config.hash32:
        preset = next((name for name, config in PRESETS.items() if config.hash32 == found), None)
        raise BundleError(
            f"the bundle is for config {bundle.config.name} (hash {bundle.config.hash32:#010x}), device {device} has "
            f"{preset or 'another'} (hash {found:#010x}); load the bundle's overlay, or compile the model for the "
            f"device: edgemoe compile --config {preset or '<its configuration file>'}"
        )
