"""``edgemoe boards``: the boards, their utilisation, and what is made for one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.boards.bitstream import OUT, build_bitstream, find_bitstream, find_vivado
from edgemoe.boards.board import Board, configuration_names, load_board
from edgemoe.boards.flash import check_host, flash
from edgemoe.boards.hwh import hwh_text
from edgemoe.boards.openxc7 import STAGES, build_open_bitstream, check_family, find_tools
from edgemoe.boards.utilisation import RESOURCES, utilisation, utilisation_row
from edgemoe.cli.application import new_application
from edgemoe.cli.options import RESULTS, write_json
from edgemoe.cli.output import note, say, show, working
from edgemoe.cli.outputs import output_file, output_folder
from edgemoe.extras import require
from edgemoe.manifest import read_manifest
from edgemoe.reports.tables import TextTable
from edgemoe.runtime import doctor as doctors
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = ["FLOWS", "command", "utilisation_table"]

FLOWS = ("vivado", "openxc7")

command = new_application(
    invoke_without_command=True, help="Boards: list, utilisation, .hwh, bitstream, flash, doctor."
)

BoardName = Annotated[str, typer.Argument(help="as edgemoe boards lists them", metavar="BOARD", show_default=False)]
Out = Annotated[Path, typer.Option(help="folder for what is made")]


@command.callback()
def boards(
    context: typer.Context,
    measure: Annotated[
        bool, typer.Option("--utilisation", help="synthesize every board's configuration with Yosys")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="board or variant; several allowed")] = None,
    path: Annotated[Path, typer.Option("--json", help="file for the rows")] = RESULTS / "boards.json",
) -> None:
    """List the boards and their variants; with --utilisation, what each one's configuration takes of its FPGA."""
    if context.invoked_subcommand is not None:
        return
    chosen = [load_board(name) for name in only or configuration_names()]
    if measure:
        _measure(chosen, path)
    else:
        show(_list(chosen))
        say("")
        say("images with PYNQ:")
        for name, pynq in {board.file.parent.name: board.pynq for board in chosen}.items():
            say(f"  {name}: {pynq}")


def _list(boards: list[Board]) -> TextTable:
    table = TextTable(
        "clocks are assumed until placed and routed",
        ["board", "FPGA", ">HP bits", ">MHz", ">array", "status"],
    )
    for board in boards:
        table.add(
            board.name,
            board.device.name,
            f"{board.hp_ports} x {board.hp_bits}",
            f"{board.clock_mhz:g}",
            f"{board.config.lanes_k}x{board.config.lanes_n}",
            board.status,
        )
    return table


def _measure(boards: list[Board], path: Path) -> None:
    """Synthesize, print and write the rows; ValueError if one does not fit."""
    require("edgemoe boards --utilisation", "sim", "synth")
    output_file(path)
    rows = []
    for board in boards:
        rows.append(utilisation_row(board, _utilisation(board)))
        write_json(path, rows)
    show(utilisation_table(rows))
    say(f"rows are in {path}")
    if short := [row["board"] for row in rows if not row["fits"]]:
        raise ValueError(f"configurations of {', '.join(short)} do not fit; see {path}")


def _utilisation(board: Board) -> dict[str, Any]:
    title = f"Yosys, {board.name}"
    with working(title) as work:
        return utilisation(board, on_step=lambda step: work.step(f"{title}: {step}"))


def utilisation_table(rows: Iterable[dict[str, Any]]) -> TextTable:
    """A table of ``utilisation_row``s."""
    table = TextTable(
        "by Yosys: mapped, neither placed nor routed",
        ["board", "device", "array", *(f">{resource}" for resource in RESOURCES), "fits"],
        gap=1,
    )
    for row in rows:
        cells = [_share(row["used"][resource], row["available"][resource]) for resource in RESOURCES]
        array = f"{row['lanes_k']}x{row['lanes_n']}"
        table.add(row["board"], row["device"], array, *cells, "yes" if row["fits"] else "NO")
    return table


def _share(used: float, available: int) -> str:
    return f"{used:,g} {100 * used / available:.0f}%" if available else f"{used:g} of 0" if used else "none"


@command.command()
def hwh(board: BoardName, out: Out = OUT) -> None:
    """Write a board's hardware handoff without Vivado, for the simulated PYNQ device."""
    chosen = load_board(board)
    path = output_file(out / f"{chosen.name}.hwh")
    write_text(path, hwh_text(chosen))
    say(f"{path}: {path.stat().st_size:,} bytes")


@command.command()
def bitstream(
    board: BoardName,
    out: Out = OUT,
    flow: Annotated[str, typer.Option(help=f"one of {', '.join(FLOWS)}")] = FLOWS[0],
    until: Annotated[str, typer.Option(help=f"of openxc7: {', '.join(STAGES)}")] = STAGES[-1],
    seed: Annotated[int, typer.Option(min=0, help="of openxc7's placer")] = 1,
) -> None:
    """Build a board's bitstream with Vivado, or a Zynq-7000's with open tools (docs/open_flow.md)."""
    for name, value, known in (("flow", flow, FLOWS), ("until", until, STAGES)):
        if value not in known:
            raise ValueError(f"--{name} must be one of {', '.join(known)}, not {value!r}")
    chosen = load_board(board)
    opened = flow == "openxc7"
    if not opened:
        find_vivado(chosen)
    elif until == "synthesis":
        check_family(chosen)
    else:
        find_tools(chosen)
    require("edgemoe boards bitstream", "sim", "synth")
    output_folder(out)
    title = f"bitstream of {chosen.name}"
    with working(title) as work:

        def step(text: str) -> None:
            work.step(f"{title}: {text}")

        if opened:
            made = build_open_bitstream(chosen, out, until=until, seed=seed, on_step=step)
        else:
            made = build_bitstream(chosen, out, step)
    if made.is_dir():
        _say_stage(made)
        return
    found = read_manifest(made)
    say(f"{made}: {', '.join(found.files)}; worst slack {found.slack_ns} ns at {found.clock_mhz:g} MHz")


def _say_stage(folder: Path) -> None:
    """What an open flow that was not to end has done."""
    result = read_json(folder / "result.json")
    used = ", ".join(f"{name} {result['used'][name]:g}" for name in RESOURCES if result["used"][name])
    clock = f"; nextpnr reaches {result['reached_mhz']:g} MHz" if "reached_mhz" in result else ""
    say(f"{folder}: the whole system, mapped: {used}{clock}")


@command.command("flash")
def flash_command(
    board: BoardName,
    host: Annotated[str, typer.Option(help="user@name of the board", show_default=False)],
    bundle: Annotated[Path | None, typer.Option(help="default: m3vit-micro for the board")] = None,
    out: Out = OUT,
) -> None:
    """Copy bitstream, bundle and runtime to a board over ssh, load it there and run the self-test."""
    chosen = load_board(board)
    check_host(host)  # both before anything is compiled
    find_bitstream(chosen, out)
    output_folder(out)
    if bundle is None:
        with working(f"compiling for {chosen.name}"):
            bundle = _bundle(chosen, out)
    flash(chosen, host, bundle, out, note)


@command.command()
def doctor(
    out: Annotated[Path, typer.Option(help="the file")] = doctors.OUT,
    bundle: Annotated[
        Path | None, typer.Option(help="of the self-test; default: what lies beside the newest overlay")
    ] = None,
    bitstream: Annotated[Path | None, typer.Option(help="of the self-test; default: the newest overlay")] = None,
    selftest: Annotated[bool, typer.Option(help="load the overlay and compare with the reference")] = True,
) -> None:
    """Collect what helps to help in one file: versions, board, image, clocks, overlays, self-test. No names, no keys.

    On a board that `make flash` has set up, doctor.sh beside the bitstream does the same.
    """
    output_file(out)
    with working("looking at this machine"):
        found = doctors.examine(out, bundle, bitstream, selftest)
    say(*doctors.summary(found, out))


def _bundle(board: Board, out: Path) -> Path:
    from edgemoe.compiler import build_bundle
    from edgemoe.workloads import best_model, load_graph

    path = out / f"m3vit-micro-{board.name}.emoe"
    build_bundle(load_graph(best_model()), board.config).save(path)
    return path
