"""``make frames``: the tasks of a frame in one program, and batches of images, against one program after the other.

Every program runs on the RTL, with every tensor compared. Images of a batch that do not fit one program go in as few
programs of equal size as do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemoe.bundle import Bundle, Joined
from edgemoe.compiler import CompileError, build_bundle
from edgemoe.compiler.bound import phase_bounds, total_bound
from edgemoe.compiler.fits import fits
from edgemoe.reports.tables import TextTable
from edgemoe.runtime.verify import VerifiedJoint, Verifier, open_verified
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets import scenes
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference

__all__ = ["CASES", "FrameCase", "frame_rows", "frame_table", "split_images"]


@dataclass(frozen=True)
class FrameCase:
    """What is measured: so many tasks of so many images, of a preset on a configuration."""

    model: str
    config: str
    tasks: int
    images: int


#: What docs/benchmarks.md has, in its order.
CASES = (
    FrameCase("m3vit-tiny", "pynq-z2", 2, 1),
    FrameCase("m3vit-tiny", "pynq-z2", 1, 4),
    FrameCase("m3vit-tiny", "zcu102", 2, 1),
    FrameCase("m3vit-tiny", "zcu102", 1, 4),
    FrameCase("m3vit-micro", "pynq-z2", 2, 1),
    FrameCase("m3vit-micro", "pynq-z2", 4, 1),
)


def split_images(model: ModelConfig, config: AcceleratorConfig, tasks: Sequence[str], images: int) -> list[Joined]:
    """As few programs of equal size as hold so many images.

    Raises:
        CompileError: not even the tasks of one image fit one program
    """
    for count in range(1, images + 1):
        joined = Joined(tuple(tasks), -(-images // count))
        if images % count == 0 and not (reasons := fits(model, config, joined=joined)):
            return [joined] * count
    raise CompileError(f"{joined}: {'; '.join(reasons)}")


def frame_rows(
    graph: IntegerGraph, config: AcceleratorConfig, cases: Sequence[FrameCase], dram_model: str = "plain"
) -> Iterator[dict[str, Any]]:
    """Each case's cycles on the RTL beside those of one program after the other.

    ``cases`` are of this model and configuration. The images are scenes of the demo.

    Raises:
        CompileError: the tasks of one image do not fit one program
    """
    model = graph.config
    names = [task.name for task in model.tasks]
    planned = [split_images(model, config, names[: case.tasks], case.images) for case in cases]
    wanted = dict.fromkeys(joined for programs in planned for joined in programs if len(joined.sequences) > 1)
    bundle = build_bundle(graph, config, joint=list(wanted))
    with open_verified(bundle, dram_model=dram_model) as verifier:
        bench = _Bench(graph, bundle, verifier)
        for case, programs in zip(cases, planned, strict=True):
            yield bench.row(case, programs)


class _Bench:
    """Runs programs on one simulation; what was run alone once is not run again."""

    def __init__(self, graph: IntegerGraph, bundle: Bundle, verifier: Verifier) -> None:
        self.graph, self.bundle, self.verifier = graph, bundle, verifier
        self._alone: dict[tuple[int, str], VerifiedJoint] = {}
        self._traces: dict[tuple[int, str], dict[str, Any]] = {}
        self._first = scenes.SPLITS["demo"].start

    def row(self, case: FrameCase, programs: Sequence[Joined]) -> dict[str, Any]:
        """One case: its programs, then each of their sequences alone."""
        runs, ideal, first = [], 0.0, 0
        for joined in programs:
            run = self._run(joined, first)
            runs.append(run)
            ideal += self._ideal(joined, run)
            first += joined.images
        names = programs[0].tasks
        apart = [self._run_alone(image, task) for task in names for image in range(case.images)]
        cycles, alone = (sum(run.stats["cycles"] for run in each) for each in (runs, apart))
        checked = [run.comparison for run in (*runs, *apart) if run.comparison is not None]
        expert_bits = self.graph.expert_bits if self.graph.config.num_experts else None
        return {
            "model": self.graph.config.name,
            "config": self.bundle.config.name,
            "config_hash": self.bundle.config.content_hash,
            "expert_bits": expert_bits,
            "tasks": case.tasks,
            "task_names": list(names),
            "images": case.images,
            "programs": len(programs),
            "cycles": cycles,
            "cycles_apart": alone,
            "ratio": cycles / alone,
            "ideal_cycles": round(ideal),
            "ideal_ratio": ideal / alone,
            "bytes_read": sum(run.stats["bytes_read"] for run in runs),
            "bytes_read_apart": sum(run.stats["bytes_read"] for run in apart),
            "tensors": sum(len(comparison.tensors) for comparison in checked),
            "bit_exact": all(comparison.mismatches == 0 for comparison in checked),
            "sim_seconds": sum(run.stats["seconds"] for run in (*runs, *apart)),
        }

    def _run(self, joined: Joined, first: int) -> VerifiedJoint:
        """A program, with the images from number ``first`` on."""
        if len(joined.sequences) == 1:
            return self._run_alone(first, joined.tasks[0])
        images = [self._image(first + number) for number in range(joined.images)]
        expected = [self._trace(first + image, task) for image, task in joined.sequences]
        return self.verifier.run_joint(images, joined, expected=expected)

    def _run_alone(self, image: int, task: str) -> VerifiedJoint:
        if (image, task) not in self._alone:
            expected = [self._trace(image, task)]
            self._alone[image, task] = self.verifier.run_joint([self._image(image)], Joined((task,)), expected=expected)
        return self._alone[image, task]

    def _image(self, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        model = self.graph.config
        return scenes.generate_scene(self._first + number, model.image_height, model.image_width).image

    def _trace(self, image: int, task: str) -> dict[str, Any]:
        if (image, task) not in self._traces:
            reference.run(self.graph, self._image(image), task, self._traces.setdefault((image, task), {}))
        return self._traces[image, task]

    def _ideal(self, joined: Joined, run: VerifiedJoint) -> float:
        """Cycles without which no program of these sequences is: array or memory never waits."""
        model, config = self.graph.config, self.bundle.config
        queued = len(joined.sequences) * model.num_tokens * model.top_k
        phases = self.bundle.program(joined).phases
        return total_bound(config, phase_bounds(config, phases, queued, run.stats["experts_used"]))[1]


def frame_table(rows: Sequence[dict[str, Any]]) -> TextTable:
    """The rows."""
    view = TextTable(
        "Several tasks or images in one program, on the RTL",
        ["model", "config", ">tasks", ">images", ">programs", ">cycles", ">apart", ">ratio", ">least", "exact"],
        caption="apart: each sequence's own program, one after the other; least: ratio that no program can be below",
        gap=1,
    )
    for row in rows:
        view.add(
            row["model"],
            row["config"],
            str(row["tasks"]),
            str(row["images"]),
            str(row["programs"]),
            f"{row['cycles']:,}",
            f"{row['cycles_apart']:,}",
            f"{row['ratio']:.3f}",
            f"{row['ideal_ratio']:.3f}",
            f"{row['tensors']:,} tensors" if row["bit_exact"] else "NO",
        )
    return view
