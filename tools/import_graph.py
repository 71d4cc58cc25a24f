"""Who imports whom: rooms, floors, circles and arrows that run back up, of the packages of a checkout.

Usage: ``python tools/import_graph.py [CHECKOUT] [--arrows] [--json]``

A *room* is a module or package directly below one of the four roots. Imports inside functions count. A *circle* is a
set of modules each of which reaches every other. The *floor* of a room is the longest way from it down to a room that
imports none; where rooms form a circle, the fewest arrows that would have to go are those that run *back up*.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grimp

__all__ = ["ROOTS", "circles", "floors", "import_graph", "rooms_of", "upward"]

ROOTS = {"edgemoe_hw": "hw", "edgemoe_models": "models", "edgemoe_sim": "sim", "edgemoe": "sw"}
_TRIED = 7  # rooms of a circle for which every order is tried

Graph = Mapping[str, set[str]]


def import_graph(checkout: Path) -> dict[str, set[str]]:
    """Modules and what each imports, of all four packages."""
    sys.path[:0] = [str(checkout / folder) for folder in ROOTS.values()]
    graph = grimp.build_graph(*ROOTS, cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in sorted(graph.modules)}


def circles(graph: Graph) -> list[list[str]]:
    """Sets of nodes that reach each other, the largest first."""
    reach = {node: _reachable(graph, node) for node in graph}
    found = {tuple(sorted(m for m in reach[node] if node in reach[m])) for node in graph if node in reach[node]}
    return sorted(map(list, found), key=lambda circle: (-len(circle), circle))


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for node in graph.get(todo.pop(), ()):
            if node not in seen:
                seen.add(node)
                todo.append(node)
    return seen


def rooms_of(graph: Graph, root: str) -> dict[str, set[str]]:
    """The rooms of a root, and which other rooms each imports; ``__init__`` of the root itself is the front door."""

    def room(module: str) -> str | None:
        parts = module.split(".")
        return parts[1] if parts[0] == root and len(parts) > 1 else None

    rooms: dict[str, set[str]] = {name: set() for module in graph if (name := room(module))}
    for module, imported in graph.items():
        if name := room(module):
            rooms[name] |= {other for target in imported if (other := room(target)) and other != name}
    return rooms


def upward(rooms: Graph) -> list[tuple[str, str]]:
    """The fewest arrows without which the rooms have no circle."""
    arrows: list[tuple[str, str]] = []
    for circle in circles(rooms):
        inside = [(a, b) for a in circle for b in rooms[a] & set(circle)]
        orders: Iterable[tuple[str, ...]] = itertools.permutations(circle)
        if len(circle) > _TRIED:  # by who imports most: not always the fewest
            orders = [tuple(sorted(circle, key=lambda room: -len(rooms[room] & set(circle))))]
        places = ({room: place for place, room in enumerate(order)} for order in orders)
        back: list[list[tuple[str, str]]] = [[(a, b) for a, b in inside if at[a] > at[b]] for at in places]
        arrows += sorted(back, key=len)[0]
    return arrows


def floors(rooms: Graph) -> dict[str, int]:
    """Each room's floor, 0 at the bottom, without the arrows that run back up."""
    removed = set(upward(rooms))
    down = {room: [other for other in others if (room, other) not in removed] for room, others in rooms.items()}
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            found[room] = 1 + max(map(floor, down[room]), default=-1)
        return found[room]

    return {room: floor(room) for room in sorted(rooms)}


def summary(graph: Graph) -> dict[str, Any]:
    """What is printed, as JSON."""
    packages = {}
    for root in ROOTS:
        rooms = rooms_of(graph, root)
        storeys = floors(rooms)
        packages[root] = {
            "rooms": len(rooms),
            "floors": 1 + max(storeys.values(), default=-1),
            "arrows": sum(map(len, rooms.values())),
            "upward": [f"{a} -> {b}" for a, b in upward(rooms)],
            "by_floor": {n: [room for room in storeys if storeys[room] == n] for n in sorted(set(storeys.values()))},
        }
    roots = {root: {m.split(".")[0] for t in graph for m in graph[t] if t.split(".")[0] == root} for root in ROOTS}
    return {
        "modules": len(graph),
        "imports": sum(map(len, graph.values())),
        "roots": {root: sorted(others - {root}) for root, others in roots.items()},
        "circles": circles(graph),
        "packages": packages,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 1 if there is a circle or an arrow back up."""
    parser = argparse.ArgumentParser(prog="python tools/import_graph.py", description=__doc__.splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--arrows", action="store_true", help="list which room imports which")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    options = parser.parse_args(arguments)
    graph = import_graph(options.checkout.resolve())
    found = summary(graph)
    failed = bool(found["circles"]) or any(values["upward"] for values in found["packages"].values())
    if options.json:
        print(json.dumps(found, indent=1))
        return int(failed)
    print(f"{found['modules']} modules, {found['imports']} imports, {len(found['circles'])} circles of modules")
    for circle in found["circles"]:
        print(f"  circle: {', '.join(circle)}")
    for root, values in found["packages"].items():
        print(
            f"{root} ({', '.join(found['roots'][root]) or 'imports none of the others'}): {values['rooms']} rooms, ",
            end="",
        )
        print(f"{values['floors']} floors, ", end="")
        print(f"{values['arrows']} arrows, {len(values['upward'])} of them back up")
        for arrow in values["upward"]:
            print(f"  back up: {arrow}")
        for number, rooms in reversed(values["by_floor"].items()):
            print(f"  {number}: {', '.join(rooms)}")
        if options.arrows:
            for room, others in sorted(rooms_of(graph, root).items()):
                print(f"    {room} -> {', '.join(sorted(others)) or '-'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
