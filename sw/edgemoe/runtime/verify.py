"""The driver on the Verilated accelerator, stopped on its way: figures of each phase, every traced tensor compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, Joined, Joint, Task
from edgemoe.errors import DeviceError
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.platforms.sim import SimPlatform, open_platform
from edgemoe.runtime.waves import Waves
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Engine, EnginePayload, decode_program
from edgemoe_models.model_image import check_image
from edgemoe_sim.build import build_accelerator
from edgemoe_sim.pads import RtlPads
from edgemoe_sim.trace import Comparison, TraceChecker
from edgemoe_sim.verilated import ModelError, Stop, VerilatedModel

__all__ = ["STALLS", "VerifiedJoint", "VerifiedRun", "Verifier", "open_verified"]

Progress = Callable[[float], None]

#: Stall counters by their name in reports.
STALLS = {engine.name.lower(): f"STALL_{engine.name}" for engine in Engine} | {
    "epilogue": "STALL_EPILOGUE",
    "command": "STALL_COMMAND",
}
_CYCLE_MARGIN = 20  # a program may take this many times its estimate before it is given up


@dataclass(frozen=True)
class VerifiedRun:
    """One inference on the RTL.

    Attributes:
        outputs: the head's raw outputs, int16 [rows, channels], as they arrived in DRAM
        stats: for reports: ``cycles``, ``phases`` (name, cycles, busy, stalls), ``bytes_read``, ``bytes_written``,
            ``array_busy``, ``experts_used``, ``expert_tokens``, ``seconds``
        comparison: with the integer reference, of every traced tensor and of the outputs; None: it was not asked for
    """

    outputs: npt.NDArray[np.int16]
    stats: dict[str, Any]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class VerifiedJoint:
    """One run of a program of several token sequences on the RTL: as ``VerifiedRun``, the outputs those of each."""

    outputs: list[npt.NDArray[np.int16]]
    stats: dict[str, Any]
    comparison: Comparison | None = None


class Verifier:
    """Runs one bundle on the Verilated accelerator through the driver, and looks inside while it runs.

    Made by ``open_verified``; a context manager. After a failed run the next one begins with a reset.

    Args:
        platform: the simulation, with ``bundle``'s configuration; ``close`` closes it
        bundle: what to run
        waves: record waveforms of the first run; the simulation must have been built for it
    """

    def __init__(self, platform: SimPlatform, bundle: Bundle, waves: Waves | None = None) -> None:
        self.platform, self.bundle = platform, bundle
        self._waves = waves
        self._driver = Driver(platform, bundle, depth=1, interrupt=True)

    def run(
        self,
        image: npt.NDArray[np.uint8],
        task: str,
        *,
        expected: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> VerifiedRun:
        """One inference.

        Args:
            image: uint8 [H, W, 3] of the model's size
            task: of the bundle
            expected: the integer reference's trace of the same image and task; every traced tensor is compared with it
                as soon as its command has completed, and the outputs in DRAM at the end
            progress: told the finished share, 0 to 1

        Raises:
            BundleError: there is no such task
            ValueError: the image does not fit, or the waveforms are of commands that the program does not have
            DeviceError: the run failed
        """
        result = self.run_joint(
            [image], Joined((task,)), expected=None if expected is None else [expected], progress=progress
        )
        return VerifiedRun(result.outputs[0], result.stats, result.comparison)

    def run_joint(
        self,
        images: Sequence[npt.NDArray[np.uint8]],
        joined: Joined,
        *,
        expected: Sequence[Mapping[str, Any]] | None = None,
        progress: Progress | None = None,
    ) -> VerifiedJoint:
        """One run of a program of several tasks or images.

        Args:
            images: uint8 [H, W, 3] of the model's size, as many as the program takes
            joined: which program of the bundle
            expected: the integer reference's trace of each token sequence, in the order of ``joined.sequences``
            progress: told the finished share, 0 to 1

        Raises:
            BundleError, ValueError, DeviceError: as ``run``
        """
        info = self.bundle.program(joined)
        if len(images) != joined.images:
            raise ValueError(f"the program of {joined} takes {joined.images} images, not {len(images)}")
        checked = [check_image(self.bundle.model, image) for image in images]
        waves, self._waves = self._waves, None
        if waves is not None:
            waves.check(info.commands)
        driver, model = self._driver, self.platform.model
        for place, image in enumerate(checked):
            driver.pack(0, image, place)
        driver.clear(0)
        begin = time.perf_counter()
        try:
            run = _Run(self.bundle, info, model, expected, progress, waves)
            driver.start(info.joined.key, 0, 0)
            model.await_launch()
            stats = run.to_end(driver)
        except (ModelError, DeviceError) as error:
            raise DeviceError(f"simulated accelerator: {error}") from error
        stats["seconds"] = time.perf_counter() - begin
        outputs = [driver.unpack(info.joined.key, 0, number) for number in range(len(joined.sequences))]
        if expected is None or run.checker is None:
            return VerifiedJoint(outputs, stats)
        comparison = run.checker.result
        for found, trace, (_, task) in zip(outputs, expected, joined.sequences, strict=True):
            comparison.mismatches += int((found != trace[f"heads.{task}"]).sum())
        return VerifiedJoint(outputs, stats, comparison)

    @property
    def waves_cut(self) -> bool:
        """Whether the file of waveforms has ended at its limit."""
        return self.platform.model.trace_full

    def close(self) -> None:
        """End the simulation, with all its memory; a second call does nothing."""
        self.platform.close()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_verified(
    bundle: Bundle,
    *,
    config: AcceleratorConfig | None = None,
    dram_model: str = "plain",
    stall: float = 0.0,
    seed: int = 0,
    quiet: bool = False,
    waves: Waves | None = None,
    building: Callable[[str, float], None] | None = None,
) -> Verifier:
    """The Verilated accelerator with a bundle's weights and programs in its DRAM.

    Args:
        bundle: what to run
        config: the accelerator that is simulated; default: the bundle's own. A bundle for another one is refused
        dram_model: of the DRAM and of the ports to it: a name in ``edgemoe_sim.dram.DRAM_MODELS``
        stall: probability that a channel of the bus pauses in a cycle
        seed: of these pauses
        quiet: no message when the simulator has to be built
        waves: record waveforms of the first run; needs a build of its own, which is slower
        building: told how far the build of the simulator is (step, share), instead of that message

    Raises:
        BundleError: the bundle is for another accelerator
        ValueError: no program of the bundle has the commands of ``waves``
        DeviceError: the simulator cannot be built
    """
    config = config or bundle.config
    bundle.check_device(config, SimPlatform.name)
    if waves is not None:
        programs: list[Task | Joint] = [*bundle.tasks.values(), *bundle.joint]
        waves.check(max(program.commands for program in programs))
    if building is not None:
        try:
            build_accelerator(config, trace=waves is not None, progress=building)
        except (RuntimeError, OSError) as error:
            raise DeviceError(f"cannot build the simulated accelerator: {error}") from error
    platform = open_platform(
        bundle,
        config=config,
        dram_model=dram_model,
        stall=stall,
        seed=seed,
        quiet=quiet,
        trace=waves is not None,
    )
    try:
        return Verifier(platform, bundle, waves)
    except BaseException:
        platform.close()
        raise


class _Run:
    """One started program: stops at phase ends and traced completions, reads counters and scratchpads there."""

    def __init__(
        self,
        bundle: Bundle,
        task: Task | Joint,
        model: VerilatedModel,
        expected: Sequence[Mapping[str, Any]] | None,
        progress: Progress | None,
        waves: Waves | None,
    ) -> None:
        self.bundle, self.task, self.model, self.progress = bundle, task, model, progress
        self.phase_ends = {phase.matmuls: phase for phase in task.phases[:-1]}
        self.events: dict[Engine, list[int]] = {engine: [] for engine in Engine}
        self.events[Engine.MATMUL] = list(self.phase_ends)
        self.checker: TraceChecker | None = None
        if expected is not None:
            heads, tokens = bundle.model.heads, bundle.model.num_tokens
            self.checker = TraceChecker(bundle.config, task.program, task.trace, expected, heads, tokens)
            for part in task.trace:
                self.events[Engine(part[2])].append(part[3])
        self.commands = self._command_numbers()
        self.waves = waves
        self.wave_events = self._wave_events(waves) if waves is not None else {}
        for engine, count in self.wave_events:
            self.events[engine].append(count)
        self.events = {engine: sorted(set(counts)) for engine, counts in self.events.items()}
        self.marks: list[dict[str, Any]] = []
        self.experts_used: dict[str, int] = {}
        self.expert_tokens: dict[str, list[int]] = {}

    def _command_numbers(self) -> dict[Engine, list[int]]:
        """Program index of each engine's n-th command."""
        numbers: dict[Engine, list[int]] = {engine: [] for engine in Engine}
        for index, (_, payload) in enumerate(decode_program(self.task.program)):
            if isinstance(payload, EnginePayload):
                numbers[payload.engine].append(index)
        return numbers

    def _wave_events(self, waves: Waves) -> dict[tuple[Engine, int], Waves | None]:
        """Completions at which recording begins (what) and ends (None); begins at once if none comes before."""
        place = {
            index: (engine, number) for engine, numbers in self.commands.items() for number, index in enumerate(numbers)
        }
        events: dict[tuple[Engine, int], Waves | None] = {}
        # BEGIN and END have no engine: from the start, or from the end of the command before END.
        engine, number = place.get(waves.first, (Engine.LOAD, 0))
        if waves.first == self.task.commands - 1:
            engine, number = place[waves.first - 1][0], place[waves.first - 1][1] + 1
        if number:
            events[engine, number] = waves
        else:
            self._record(waves)
        if waves.last in place:
            engine, number = place[waves.last]
            events[engine, number + 1] = None
        return events

    def _record(self, waves: Waves | None) -> None:
        """From now on; None: no longer."""
        if waves is None:
            self.model.trace(None)
        else:
            self.model.trace(waves.path, waves.limit)

    def to_end(self, driver: Driver) -> dict[str, Any]:
        """Run to the interrupt; returns the statistics."""
        model, task = self.model, self.task
        begin = model.cycles
        limit = _CYCLE_MARGIN * max(task.estimated_cycles, 10_000)
        place = dict.fromkeys(Engine, 0)
        while True:
            watch = {
                engine.name: counts[place[engine]]
                for engine, counts in self.events.items()
                if place[engine] < len(counts)
            }
            if not watch or model.cycles - begin > limit:
                break
            reason = model.run(limit, watch)
            done = {Engine[name]: count for name, count in model.done().items()}
            self._visit(done, place)
            if reason is not Stop.WATCH:
                break
        driver.finish(task.joined.key)
        if self.waves is not None:
            self._record(None)
        cycles = model.read_reg("CYCLES")
        self._mark(task.phases[-1].name, cycles)
        return {
            "cycles": cycles,
            "phases": self._phases(),
            "experts_used": self.experts_used,
            "expert_tokens": self.expert_tokens,
            "bytes_read": model.read_reg("BYTES_READ"),
            "bytes_written": model.read_reg("BYTES_WRITTEN"),
            "array_busy": model.read_reg("ARRAY_BUSY"),
        }

    def _visit(self, done: dict[Engine, int], place: dict[Engine, int]) -> None:
        """Handle all events that have happened."""
        pads: RtlPads | None = None
        ended: list[int] = []
        for engine, counts in self.events.items():
            while place[engine] < len(counts) and counts[place[engine]] <= done[engine]:
                count = counts[place[engine]]
                place[engine] += 1
                if (engine, count) in self.wave_events:
                    self._record(self.wave_events[engine, count])
                if engine == Engine.MATMUL and count in self.phase_ends:
                    ended.append(count)
                if self.checker is not None:
                    pads = pads or RtlPads(self.model)
                    self.checker.check(self.commands[engine][count - 1], pads)
        # Registers take cycles to read, so they come after the scratchpads, which the program goes on changing.
        for count in ended:
            self._end_phase(count)

    def _expert_counts(self) -> list[int]:
        experts = self.bundle.model.num_experts
        return [self.model.read_reg("EXPERT_COUNT", expert) for expert in range(experts)]

    def _end_phase(self, count: int) -> None:
        phase = self.phase_ends[count]
        self._mark(phase.name, self.model.read_reg("CYCLES"))
        if phase.expert_macs:
            tokens = self._expert_counts()
            self.expert_tokens[phase.name] = tokens
            self.experts_used[phase.name] = sum(count > 0 for count in tokens)
            if self.checker is not None:
                self.checker.check_lengths(phase.name.removesuffix(".moe"), tokens)
        if self.progress is not None:
            self.progress(len(self.marks) / len(self.task.phases))

    def _mark(self, name: str, cycles: int) -> None:
        values = {cause: self.model.read_reg(register) for cause, register in STALLS.items()}
        self.marks.append({"name": name, "cycles": cycles, "stalls": values, "busy": self.model.read_reg("ARRAY_BUSY")})

    def _phases(self) -> list[dict[str, Any]]:
        """Differences between consecutive marks."""
        phases = []
        last: dict[str, Any] = {"cycles": 0, "stalls": dict.fromkeys(STALLS, 0), "busy": 0}
        for mark in self.marks:
            stalls = {cause: mark["stalls"][cause] - last["stalls"][cause] for cause in STALLS}
            phases.append(
                {
                    "name": mark["name"],
                    "cycles": mark["cycles"] - last["cycles"],
                    "busy": mark["busy"] - last["busy"],
                    "stalls": stalls,
                }
            )
            last = mark
        return phases
