"""The bundles that the repository holds: the packaged integer graphs, compiled, in ``sw/edgemoe/bundles``.

Usage: ``python tools/bundles.py [--check]``

A graph and a configuration give the same bytes everywhere, so a test can tell that a bundle is out of date.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import edgemoe
from edgemoe.compiler import CompilerOptions, build_bundle, joint_programs
from edgemoe.workloads import named_graphs
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.graph.file import read_graph
from edgemoe_models.trained_weights import is_checkout_only

__all__ = ["BUNDLES", "COMMAND", "stale_bundles", "write_bundles"]

BUNDLES = Path(edgemoe.__file__).parent / "bundles"
COMMAND = "python tools/bundles.py"
_CONFIGURATIONS = ("pynq-z2",)


def write_bundles(folder: Path = BUNDLES, graphs: Mapping[str, Path] | None = None) -> list[Path]:
    """Compile every graph (default: the package's) for every board, all its tasks in one program too; returns the
    bundles' files.

    Raises:
        GraphError: a graph is unusable; CompileError: it does not fit
    """
    written = []
    if graphs is None:  # a bundle of a graph that is too large for a wheel is too large as well
        graphs = {name: path for name, path in named_graphs().items() if not is_checkout_only(name)}
    for name, path in graphs.items():
        graph = read_graph(path)
        for config in _CONFIGURATIONS:
            written.append(folder / f"{name}-{config}.emoe")
            options = CompilerOptions()
            joint = joint_programs(graph.config, PRESETS[config], options, graph.expert_bits)
            build_bundle(graph, PRESETS[config], options, joint=joint).save(written[-1])
    return written


def stale_bundles(folder: Path = BUNDLES, graphs: Mapping[str, Path] | None = None) -> list[str]:
    """What is wrong with the bundles in ``folder``, one line each: missing, out of date, of no graph."""
    with tempfile.TemporaryDirectory() as fresh:
        wanted = {path.name: path.read_bytes() for path in write_bundles(Path(fresh), graphs)}
    found = {path.name: path.read_bytes() for path in folder.glob("*.emoe")}
    problems = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    problems += [f"{name} has no integer graph in the package" for name in found.keys() - wanted.keys()]
    problems += [f"{name} is out of date" for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    return sorted(problems)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Compile the packaged graphs into sw/edgemoe/bundles.")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    if not parser.parse_args(arguments).check:
        for path in write_bundles():
            print(f"{path.relative_to(BUNDLES.parents[2])}: {path.stat().st_size:,} bytes")
    elif problems := stale_bundles():
        print(f"bundles: {'; '.join(problems)}; run {COMMAND}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
