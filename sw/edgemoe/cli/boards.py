"""``edgemoe boards``: the boards, their utilisation, and what is made for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from edgemoe.boards.bitstream import OUT, build_bitstream, find_bitstream
from edgemoe.boards.board import Board, board_names, load_board
from edgemoe.boards.flash import check_host, flash
from edgemoe.boards.hwh import hwh_text
from edgemoe.boards.utilisation import utilisation, utilisation_row, utilisation_table

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, help="Boards: list, utilisation, .hwh, bitstream, flash.")
console = Console()

BoardName = Annotated[str, typer.Argument(help="as `edgemoe boards` lists them", metavar="BOARD")]
Out = Annotated[Path, typer.Option(help="folder for what is made")]


@app.callback()
def boards(
    context: typer.Context,
    measure: Annotated[
        bool, typer.Option("--utilisation", help="synthesize every board's configuration with Yosys")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="board; several allowed")] = None,
    path: Annotated[Path, typer.Option("--json", help="file for the rows")] = Path("build/boards.json"),
) -> None:
    """List the boards; with --utilisation, what each one's configuration takes of its FPGA."""
    if context.invoked_subcommand is not None:
        return
    chosen = [load_board(name) for name in only or board_names()]
    if measure:
        _measure(chosen, path)
    else:
        console.print(_list(chosen))


def _list(boards: list[Board]) -> Table:
    table = Table(
        "board",
        "FPGA",
        "HP bits",
        "MHz",
        "array",
        "PYNQ image",
        "status",
        title="clocks are assumed until placed and routed",
    )
    for board in boards:
        table.add_row(
            board.name,
            board.device.name,
            f"{board.hp_ports} x {board.hp_bits}",
            f"{board.clock_mhz:g}",
            f"{board.config.lanes_k}x{board.config.lanes_n}",
            board.pynq,
            board.status,
        )
    return table


def _measure(boards: list[Board], path: Path) -> None:
    """Synthesize, print and write the rows; ValueError if one does not fit."""
    rows = []
    path.parent.mkdir(parents=True, exist_ok=True)
    for board in boards:
        with console.status("") as status:
            rows.append(utilisation_row(board, utilisation(board, on_step=_titled(status, f"Yosys, {board.name}"))))
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    console.print(utilisation_table(rows))
    if short := [row["board"] for row in rows if not row["fits"]]:
        raise ValueError(f"configurations of {', '.join(short)} do not fit; see {path}")


def _titled(status: Status, title: str) -> Callable[[str], None]:
    return lambda step: status.update(f"{title}: {step}")


@app.command()
def hwh(board: BoardName, out: Out = OUT) -> None:
    """Write a board's hardware handoff without Vivado, for the simulated PYNQ device."""
    chosen = load_board(board)
    path = out / f"{chosen.name}.hwh"
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(hwh_text(chosen), encoding="utf-8")
    console.print(f"{path}: {path.stat().st_size:,} bytes")


@app.command()
def bitstream(board: BoardName, out: Out = OUT) -> None:
    """Build a board's bitstream with Vivado."""
    chosen = load_board(board)
    with console.status(f"bitstream of {chosen.name}") as status:
        manifest = build_bitstream(chosen, out, status.update)
    found = json.loads(manifest.read_text(encoding="utf-8"))
    console.print(
        f"{manifest}: {', '.join(found['files'])}; worst slack {found['wns_ns']} ns at {found['clock_mhz']:g} MHz"
    )


@app.command("flash")
def flash_command(
    board: BoardName,
    host: Annotated[str, typer.Option(help="user@name of the board")],
    bundle: Annotated[Path | None, typer.Option(help="default: m3vit-micro for the board")] = None,
    out: Out = OUT,
) -> None:
    """Copy bitstream, bundle and runtime to a board over ssh, load it there and run the self-test."""
    chosen = load_board(board)
    check_host(host)  # both before anything is compiled
    find_bitstream(chosen, out)
    flash(chosen, host, bundle or _bundle(chosen, out), out, lambda step: console.print(step))


def _bundle(board: Board, out: Path) -> Path:
    from edgemoe.compiler import build_bundle
    from edgemoe.workloads import best_model, load_graph

    path = out / f"m3vit-micro-{board.name}.emoe"
    build_bundle(load_graph(best_model()), board.config).save(path)
    return path
