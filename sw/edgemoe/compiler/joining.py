"""Which programs of several tasks or images a bundle gets: those that were asked for, and what is worth having."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

from edgemoe.bundle import Joined
from edgemoe.compiler.errors import CompileError, CompilerOptions
from edgemoe.compiler.fits import fits
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig

__all__ = ["MOST_IMAGES", "JointTasks", "joint_programs"]

MOST_IMAGES = 4  # of a batch: more take scratchpads that no board has, and save little more
JointTasks: TypeAlias = "Literal['auto', 'none'] | Sequence[Sequence[str]]"


def joint_programs(
    model: ModelConfig,
    config: AcceleratorConfig,
    options: CompilerOptions,
    expert_bits: int = 8,
    *,
    joint: JointTasks = "auto",
    batch: int = 1,
    note: Callable[[str], None] = lambda text: None,
) -> list[Joined]:
    """The programs of several tasks or images that a bundle is to have, for ``build_bundle``.

    Args:
        model, config, options, expert_bits: what is compiled for what
        joint: sets of tasks that get a program together; ``auto``: all tasks, where there are several and they fit;
            ``none``
        batch: each task gets programs of 2 to so many images, 1 to 4
        note: told in one line why all tasks have none together, where ``auto`` finds that they do not fit

    Returns:
        The tasks of a frame first; each set's tasks in the model's order

    Raises:
        ValueError: ``joint`` or ``batch`` is wrong, or there is no such task
        CompileError: what was asked for does not fit; the message says what is too small and by how much
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= MOST_IMAGES:
        raise ValueError(f"batch must be 1 to {MOST_IMAGES} images, not {batch!r}")
    known = tuple(task.name for task in model.tasks)
    if isinstance(joint, str) and joint not in ("auto", "none"):
        raise ValueError(f"joint must be auto, none or sets of tasks, not {joint!r}")
    sets: list[Joined] = []
    if joint == "auto":
        together = Joined(known)
        if len(known) > 1 and (problems := fits(model, config, options, expert_bits, together)):
            note(f"each task gets its own program only: {_refusal(together, config, problems)}")
        elif len(known) > 1:
            sets.append(together)
    elif joint != "none":
        sets = list(dict.fromkeys(Joined(_checked(tasks, known)) for tasks in joint))
    batches = [Joined((task,), images) for task in known for images in range(2, batch + 1)]
    for joined in [*(sets if joint != "auto" else []), *_largest(batches)]:
        if problems := fits(model, config, options, expert_bits, joined):
            raise CompileError(f"{model.name}: {_refusal(joined, config, problems)}")
    return [*sets, *batches]


def _largest(batches: Sequence[Joined]) -> Iterable[Joined]:
    """What fits with so many images fits with fewer."""
    return {joined.tasks: joined for joined in batches}.values()


def _refusal(joined: Joined, config: AcceleratorConfig, problems: Sequence[str]) -> str:
    return f"a program of {joined} does not fit {config.name}: {'; '.join(problems)}"


def _checked(tasks: object, known: tuple[str, ...]) -> tuple[str, ...]:
    """A set of tasks in the model's order."""
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        raise ValueError(f"a set of tasks that get a program together must be a list of names, not {tasks!r}")
    names = list(tasks)
    for name in names:
        if name not in known:
            raise ValueError(f"the model has no task {name!r}; it has {', '.join(known)}")
    if len(set(names)) < 2:
        raise ValueError(f"a program of several tasks needs at least two of {', '.join(known)}, not {names}")
    return tuple(name for name in known if name in names)
