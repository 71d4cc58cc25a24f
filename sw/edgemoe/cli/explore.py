"""``edgemoe explore``: which configuration of the accelerator runs models fastest on a board's FPGA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgemoe.boards.board import Board, configuration_names, load_board
from edgemoe.boards.synth import RESOURCES
from edgemoe.boards.timing.nets import grade_of
from edgemoe.cli.options import RESULTS
from edgemoe.cli.output import Work, hint, say, show, working
from edgemoe.cli.outputs import output_file, output_folder
from edgemoe.compiler.errors import CompileError
from edgemoe.configs import find_config
from edgemoe.errors import DeviceError
from edgemoe.explorer.clock import clock_text
from edgemoe.explorer.cycles import Workload, workload
from edgemoe.explorer.document import CHOSEN, FRONT, VERIFIED, front_document, write_chosen, write_front, write_verified
from edgemoe.explorer.needs import changes, nearest
from edgemoe.explorer.picture import draw_front
from edgemoe.explorer.resources import fitted
from edgemoe.explorer.search import Found, Point, judge, search
from edgemoe.explorer.space import DEPTHS
from edgemoe.explorer.verify import Verified, verify
from edgemoe.extras import require
from edgemoe.reports.tables import TextTable

__all__ = ["command"]

_PICTURE = "front.png"


def command(
    board: Annotated[str, typer.Option(help="as edgemoe boards lists them")] = "pynq-z2",
    model: Annotated[
        list[str] | None, typer.Option(help="preset or file; several allowed; default: m3vit-tiny")
    ] = None,
    expert_bits: Annotated[int, typer.Option(help="8 or 4, for models that are not quantized yet")] = 8,
    depths: Annotated[str, typer.Option(help=f"of the memories: {' or '.join(DEPTHS)}")] = DEPTHS[0],
    config: Annotated[
        str | None, typer.Option(help="search nothing: the nearest to this preset, board or file that takes the models")
    ] = None,
    check: Annotated[bool, typer.Option("--verify", help="run the front on RTL and Yosys, in parallel: hours")] = False,
    points: Annotated[int | None, typer.Option(min=1, help="verify only the chosen and the fastest others")] = None,
    scheduler: Annotated[str | None, typer.Option(help="of Dask, tcp://host:port; default: processes here")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes here; default: one a core")] = None,
    out: Annotated[Path, typer.Option(help=f"folder for {FRONT}, {CHOSEN} and {_PICTURE}")] = RESULTS / "explore",
) -> None:
    """Search a board's configurations for the fastest that fits its FPGA; draw and write the Pareto front."""
    if expert_bits not in (4, 8):
        raise ValueError(f"--expert-bits must be 8 or 4, not {expert_bits}")
    if depths not in DEPTHS:
        raise ValueError(f"--depths must be {' or '.join(DEPTHS)}, not {depths!r}")
    if check:
        require("edgemoe explore --verify", "sim", "synth", "explore")
    elif scheduler is not None or workers is not None or points is not None:
        raise ValueError("--points, --scheduler and --workers are for --verify")
    chosen_board = load_board(board)
    output_folder(out)
    for name in (FRONT, CHOSEN, _PICTURE, VERIFIED):
        output_file(out / name)
    loads = list({name: workload(name, expert_bits) for name in model or ["m3vit-tiny"]}.values())
    if config is not None:
        if check:
            raise ValueError("--verify is for a search, without --config")
        _nearest(config, chosen_board, loads, out)
        return
    title = f"exploring {chosen_board.name}"
    with working(title) as work:
        found = search(
            chosen_board,
            loads,
            depths,
            lambda done, of: work.detail(f"{title}: {done} of {of} configurations", done / of),
        )
        own = _own(chosen_board, loads)
        names = ", ".join(load.shape.name for load in loads)
        document = front_document(chosen_board, loads, depths, found)
        write_front(out, document)
        write_chosen(out, found.chosen.config)
        draw_front(f"{names} on {chosen_board.name}", found.front, found.chosen, own, out / _PICTURE)
    _show(found, own, chosen_board, loads)
    say(f"the front is in {out / FRONT} and {out / _PICTURE}; the chosen one, for --config: {out / CHOSEN}")
    if check:
        with working("verifying") as work:
            verified = _verify(_selection(found, points), chosen_board, loads, scheduler, workers, work)
        path = write_verified(out, verified)
        _report(verified, chosen_board, path)


def _own(board: Board, loads: Sequence[Workload]) -> Point | None:
    """The board's own configuration, if it takes the models and has the chains that the resource model knows."""
    try:
        return judge(board.config, board, loads)
    except CompileError:
        return None


def _percent(point: Point, board: Board) -> list[str]:
    capacity = board.device.capacity
    return [f"{100 * point.resources[name] / capacity[name]:.0f}" if capacity[name] else "-" for name in RESOURCES]


def _row(point: Point, board: Board) -> list[str]:
    config = point.config
    return [
        f"{config.lanes_k}x{config.lanes_n}",
        str(config.epilogue_lanes),
        str(config.norm_lanes),
        f"{point.score:.3f}",
        *_percent(point, board),
    ]


def _show(found: Found, own: Point | None, board: Board, loads: Sequence[Workload]) -> None:
    table = TextTable(
        f"Pareto front for {', '.join(load.shape.name for load in loads)} on {board.name} ({board.device.name})",
        ["", "array", ">epilogue", ">norm", ">ms", ">LUT %", ">FF %", ">DSP %", ">BRAM %", ">URAM %"],
        gap=1,
    )
    for point in found.front:
        table.add("chosen" if point is found.chosen else "", *_row(point, board))
    if own is not None:
        table.add(board.name, *_row(own, board))
    show(table)
    errors = fitted().errors
    say(
        "",
        f"{found.legal} configurations, {found.fitting} fit, {found.judged} were scheduled"
        + ("; ms: geometric mean" if len(loads) > 1 else ""),
        f"clock: {clock_text(board)}",
        "models against Yosys, worst of "
        f"{errors['runs']} runs: LUT {errors['lut']['worst']:.1%}, FF {errors['ff']['worst']:.1%}, block RAM "
        f"{errors['bram36']['worst']:.1%}",
    )
    if own is not None:
        say(f"the board's own configuration takes {own.score / found.chosen.score - 1:+.1%} of the chosen one's time")
    if found.chosen.config.dsp_chain != board.config.dsp_chain:
        hint(f"dsp_chain is {found.chosen.config.dsp_chain} here, {board.config.dsp_chain} in {board.name}")


def _selection(found: Found, points: int | None) -> list[Point]:
    """The chosen point and the fastest others, or all."""
    ordered = [found.chosen, *(point for point in found.front if point is not found.chosen)]
    return ordered if points is None else ordered[:points]


def _verify(
    points: Sequence[Point],
    board: Board,
    loads: Sequence[Workload],
    scheduler: str | None,
    workers: int | None,
    work: Work,
) -> list[Verified]:
    grade_of(board.device.family, board.part)  # before hours of work, if there were none
    return verify(
        points,
        board.file.parent.name,
        loads,
        scheduler=scheduler,
        workers=workers,
        on_done=lambda done, of: work.detail(f"verifying: {done} of {of} tasks done", done / of),
    )


def _report(verified: Sequence[Verified], board: Board, path: Path) -> None:
    table = TextTable(
        "models against RTL (cycles) and Yosys (resources), and the clock by static timing",
        ["array", ">cycles", *(f">{name}" for name in RESOURCES), ">MHz", "equal"],
        gap=1,
    )
    for one in verified:
        worst = max(one.cycle_errors.values(), key=abs, default=0.0)
        errors = [f"{one.resource_errors[name]:+.1%}" if name in one.resource_errors else "-" for name in RESOURCES]
        array = f"{one.point.config.lanes_k}x{one.point.config.lanes_n}"
        equal = "NO" if any(one.mismatches.values()) else "yes"
        table.add(array, f"{worst:+.1%}", *errors, f"{one.fmax_mhz:.0f}", equal)
    say("")
    show(table)
    say(f"rows are in {path}")
    if slow := [one.point.config.name for one in verified if one.fmax_mhz < board.clock_mhz]:
        hint(f"{', '.join(slow)}: the estimated clock is below the assumed {board.clock_mhz:g} MHz")
    if wrong := [one.point.config.name for one in verified if any(one.mismatches.values())]:
        raise DeviceError(f"{', '.join(wrong)}: the RTL differs from the integer reference; see {path}")


def _nearest(name: str, board: Board, loads: Sequence[Workload], out: Path) -> None:
    """Answer for one configuration: it fits, or what must change."""
    asked = find_config(name)
    shapes = [load.shape for load in loads]
    found = nearest(asked, shapes, board)
    names = ", ".join(shape.name for shape in shapes)
    differing = changes(asked, found, shapes)
    if differing:
        table = TextTable(
            f"the nearest to {asked.name} that takes {names} and fits {board.device.name}",
            ["field", f">{asked.name}", ">nearest"],
        )
        for change in differing:
            table.add(change.field, str(change.before), str(change.after))
        show(table)
        say("", *dict.fromkeys(f"{change.field}: {change.why}" for change in differing), "")
    else:
        say(f"{asked.name} takes {names} and fits {board.device.name}: nothing has to change")
    point = judge(found, board, loads)
    capacity = board.device.capacity
    used = ", ".join(f"{key} {point.resources[key]:,g} of {capacity[key]:,}" for key in RESOURCES if capacity[key])
    say(f"{used}; {point.score:.3f} ms")
    say(f"it is in {write_chosen(out, found)}")
    if board.name in configuration_names() and found.axi_masters != board.config.axi_masters:
        hint(f"{board.name}'s block design has {board.config.axi_masters} memory ports, this {found.axi_masters}")
