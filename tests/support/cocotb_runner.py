"""Runs a cocotb bench on a design under the project's Verilator, from pytest."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import cache_root, cached_folder, is_sealed, seal
from edgemoe_sim import compilation
from edgemoe_sim.compilation import Sources, compile_objects, link, run
from edgemoe_sim.verilator import BuildError, find_verilator

__all__ = ["run_bench"]

_TOP = "edgemoe"
_FLAGS = (
    "--cc",
    *("--prefix", "Vtop", "--top-module", _TOP),
    "--vpi",
    "--public-flat-rw",
    *("--x-assign", "fast", "--timescale", "1ns/1ps"),
    *("-Wno-fatal", "-Wno-lint", "-Wno-style"),
)
_LEAST_VERSION = (5, 36)  # cocotb 2's
_RUNTIME = ("verilated.cpp", "verilated_threads.cpp", "verilated_vpi.cpp")
_DEFINES = ("-DVM_COVERAGE=0", "-DVM_TRACE=0", "-DVM_TRACE_FST=0", "-DVM_TRACE_VCD=0")


def _build(verilog: str) -> Path:
    """Folder with the program of ``verilog`` and cocotb, which ``edgemoe`` in it is; made once for each content.

    cocotb's runner would call make, which cannot do with a space in the path of anything.
    """
    try:
        import cocotb_tools.config
    except ImportError:
        raise BuildError("cocotb is missing; install it with: pip install -e '.[dev]'") from None
    verilator = find_verilator()
    if verilator.version < _LEAST_VERSION:
        raise BuildError(f"cocotb needs Verilator 5.036 or newer, and {verilator.program} is older")
    harness = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    libraries = str(cocotb_tools.config.libs_dir)
    texts = [Path(path).read_text(encoding="utf-8") for path in (__file__, compilation.__file__, harness)]
    key = repr((verilog, texts, libraries, str(verilator.root), verilator.version, compilation.cpu()))
    cache = cache_root() / "cocotb"

    def fill(folder: Path) -> None:
        work = folder / "work"
        write_text(work / "edgemoe.v", verilog)
        run([str(verilator.program), *_FLAGS, "--Mdir", str(work), "edgemoe.v"], work, verilator.environment())
        objects = compile_objects(Sources(work, "Vtop", harness, _RUNTIME, _DEFINES), verilator, cache)
        flags = [f"-Wl,-rpath,{libraries}", f"-L{libraries}", "-lcocotbvpi_verilator"]
        link(objects, flags, folder / _TOP)
        seal(folder / _TOP)
        shutil.rmtree(work)

    return cached_folder(cache / hashlib.sha256(key.encode()).hexdigest()[:16], _built, fill)


def _built(folder: Path) -> Path:
    if not is_sealed(folder / _TOP):
        raise ValueError(f"{folder} is torn")
    return folder


def run_bench(
    verilog: str, bench: Path, *, parameters: dict[str, str] | None = None, testcase: str | None = None, seed: int = 1
) -> None:
    """Build ``verilog`` (module ``edgemoe``, once for each content) and run the cocotb tests of the file ``bench``.

    Args:
        verilog: text of the design
        bench: file with the tests
        parameters: environment variables for the bench
        testcase: run only this test
        seed: of ``random`` in the bench; printed

    Raises:
        AssertionError: a test failed, or none ran; its log is on stdout
        BuildError: a tool is missing
    """
    folder = _build(verilog)
    from cocotb_tools.runner import get_runner

    print(f"cocotb seed {seed}")
    sys.path.insert(0, str(bench.parent))  # the runner hands sys.path on
    try:
        results = get_runner("verilator").test(
            test_module=bench.stem,
            hdl_toplevel=_TOP,
            hdl_toplevel_lang="verilog",
            build_dir=folder,
            test_dir=folder,
            testcase=testcase,
            seed=seed,
            results_xml=str(folder / f"{bench.stem}-{os.getpid()}.xml"),
            extra_env=parameters or {},
        )
    finally:
        sys.path.remove(str(bench.parent))
    tree = ElementTree.parse(results)
    cases = [case for case in tree.iter("testcase") if case.find("skipped") is None]
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    assert cases, f"no test of {bench.name} ran"
    assert not failed, f"cocotb tests failed: {', '.join(map(str, failed))}"
