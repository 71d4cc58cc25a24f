"""Verilates a design into a shared library, once for each content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import edgemoe_hw
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Engine
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import cache_root, cached_folder, cached_text, is_sealed, seal
from edgemoe_sim import compilation
from edgemoe_sim.compilation import CXX_FLAGS, LEVELS, Sources, compile_objects, cpu, link, run
from edgemoe_sim.fast_verilog import fast_verilog
from edgemoe_sim.verilator import BuildError, find_verilator

__all__ = [
    "BuildError",
    "accelerator_verilog",
    "build_accelerator",
    "build_library",
    "build_simulation",
    "parse_memories",
]

Progress = Callable[[str, float], None]
_VERILATE_FROM, _COMPILE_FROM = 0.2, 0.35  # shares of a build's time

HARNESS = Path(__file__).with_name("harness.cpp")
DRAM_MODEL = Path(__file__).with_name("dram_model.h")
PREFIX = "Vedgemoe"
_LIBRARY = "libedgemoe.so"
VERILATOR_FLAGS = (
    "--cc",
    "--prefix",
    PREFIX,
    "--top-module",
    "edgemoe",
    "-O3",
    "--flatten",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
    "--output-split",
    "20000",
    "--output-split-cfuncs",
    "2000",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
)
# The completion counters must survive optimisation; memories do anyhow, since arrays are never split.
VLT = '`verilator_config\npublic_flat_rd -module "*" -var "engine_done_*"\n'

_ELEMENT_BYTES = {"CData": 1, "SData": 2, "IData": 4, "QData": 8}
_MEMORY = re.compile(r"^\s*VlUnpacked<(CData|SData|IData|QData|VlWide<(\d+)>)/\*(\d+):0\*/, (\d+)> (\w+);", re.M)


@dataclass(frozen=True)
class MemoryInfo:
    """An on-chip memory in Verilator's root class."""

    name: str  # instance path below the top, with dots
    member: str
    width: int
    depth: int
    stride: int  # bytes between elements


def _rtl_sources() -> str:
    """Digest of the RTL's sources."""
    digest = hashlib.sha256()
    for source in sorted(Path(edgemoe_hw.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


_AT_START = _rtl_sources()


def accelerator_verilog(config: AcceleratorConfig) -> str:
    """Verilog of the accelerator, from the cache while neither the configuration nor the RTL's sources change."""
    key = f"{config.content_hash} {importlib.metadata.version('amaranth')} {_rtl_sources()}"

    def make() -> str:
        from edgemoe_hw.verilog import generate  # with Amaranth, which a warm start need not load

        text: str = generate(config)
        return text

    def keep() -> bool:  # while somebody edits them, it is not known of which version the loaded modules are
        return _rtl_sources() == _AT_START

    return cached_text(cache_root() / "verilog" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.v", make, keep)


def parse_memories(header: str) -> list[MemoryInfo]:
    """The memories declared in the text of ``Vedgemoe___024root.h``."""
    memories = []
    for kind, words, msb, depth, member in _MEMORY.findall(header):
        if not member.startswith("edgemoe__DOT__"):
            continue  # Verilator's own
        path = member.removeprefix("edgemoe__DOT__").removeprefix("top__DOT__").replace("__DOT__", ".")
        name = re.sub(r"__0([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), path)
        stride = 4 * int(words) if words else _ELEMENT_BYTES[kind]
        memories.append(MemoryInfo(name, member, int(msb) + 1, int(depth), stride))
    return memories


def _memory_table(header: str, masters: int, axi_bytes: int, named: bool) -> str:
    memories = parse_memories(header) if named else []
    rows = "\n".join(
        f'        {{"{memory.name}", &root->{memory.member}, {memory.width}, {memory.depth}, {memory.stride}}},'
        for memory in memories
    )
    done = [] if named else ["0"] * len(Engine)
    for engine in Engine if named else ():
        match = re.search(rf"\b(\w+__DOT__engine_done_{engine.name.lower()});", header)
        if match is None:
            raise BuildError(f"the design has no signal engine_done_{engine.name.lower()}")
        done.append(f"root->{match[1]}")
    return f"""#pragma once
#include "{PREFIX}___024root.h"
#define MASTERS {masters}
#define AXI_BYTES {axi_bytes}
#define ENGINES {len(Engine)}
#define ENGINE_DONE(root) {{{", ".join(done)}}}
struct Memory {{ const char* name; const void* data; uint32_t width, depth, stride; }};
static inline int memory_table({PREFIX}___024root* root, const Memory** table) {{
    static thread_local Memory memories[] = {{
{rows}
        {{nullptr, nullptr, 0, 0, 0}},
    }};
    const Memory fresh[] = {{
{rows}
        {{nullptr, nullptr, 0, 0, 0}},
    }};
    for (int i = 0; i < {len(memories)}; i++) memories[i] = fresh[i];
    *table = memories;
    return {len(memories)};
}}
"""


def build_accelerator(config: AcceleratorConfig, trace: bool = False, progress: Progress | None = None) -> Path:
    """Shared library of an accelerator, from the cache where it is there; ``progress`` as for ``build_library``."""
    if progress is not None:
        progress("writing Verilog", 0.0)
    return build_library(
        accelerator_verilog(config),
        masters=config.axi_masters,
        axi_bytes=config.axi_bytes,
        trace=trace,
        progress=progress,
    )


def build_library(
    verilog: str,
    *,
    masters: int,
    axi_bytes: int,
    trace: bool = False,
    named: bool = True,
    quiet: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Shared library of ``verilog`` (module ``edgemoe``) and the harness, from the cache where it is there.

    Args:
        verilog: text of the design
        masters, axi_bytes: of its configuration
        trace: with waveforms (slower)
        named: it has the accelerator's memories and completion counts by their names; else, as in a netlist, there are
            none, and all counts are 0
        quiet: no message
        progress: told each step and the share of the work that is done, instead of the message

    Raises:
        BuildError: a tool is missing or failed; the message says which and has its last lines
    """

    def write_memory_table(work: Path) -> None:
        header = (work / f"{PREFIX}___024root.h").read_text(encoding="utf-8")
        write_text(work / "memory_table.h", _memory_table(header, masters, axi_bytes, named))

    return build_simulation(
        fast_verilog(verilog),
        HARNESS,
        "accelerator",
        headers=(DRAM_MODEL,),
        files={"edgemoe.vlt": VLT} if named else {},
        options=(find_verilator().trace_option,) if trace else (),
        runtime=("verilated_vcd_c.cpp",) if trace else (),
        prepare=write_memory_table,
        defines=(f"-DVM_TRACE={int(trace)}", f"-DVM_TRACE_VCD={int(trace)}"),
        keyed=(masters, axi_bytes, named),
        quiet=quiet,
        progress=progress,
    )


def build_simulation(
    verilog: str,
    harness: Path,
    what: str,
    *,
    headers: Sequence[Path] = (),
    files: Mapping[str, str] = MappingProxyType({}),
    options: Sequence[str] = (),
    runtime: Sequence[str] = (),
    defines: Sequence[str] = (),
    prepare: Callable[[Path], None] = lambda work: None,
    keyed: Sequence[object] = (),
    quiet: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Shared library of ``verilog`` (module ``edgemoe``) and a C++ harness, from the cache where it is there.

    Args:
        what: is simulated, for the message
        headers: of the harness
        files: text by name, for Verilator to read before the design
        options: of Verilator, besides ``VERILATOR_FLAGS``
        runtime: sources of Verilator's, besides those that every simulation needs
        defines: for the compiler
        prepare: writes what the harness includes; called in the folder that Verilator has written
        keyed: what ``prepare`` depends on
        quiet, progress, raises: as ``build_library``
    """
    verilator = find_verilator()
    flags = repr((VERILATOR_FLAGS, CXX_FLAGS, LEVELS, *files.items(), options, runtime, defines, keyed, cpu()))
    version = (verilator.include / "verilated_config.h").read_text(encoding="utf-8")
    sources = harness, *headers, Path(__file__), Path(compilation.__file__)
    written = (path.read_text(encoding="utf-8") for path in sources)
    texts = verilog, *written, flags, version
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]

    def fill(folder: Path) -> None:
        if progress is None and not quiet:
            message = f"building the Verilated {what} (once for each configuration, about a minute)"
            print(message, file=sys.stderr, flush=True)
        work = folder / "work"
        work.mkdir()
        for file, text in {**files, "edgemoe.v": verilog}.items():
            write_text(work / file, text)
        for header in headers:
            write_text(work / header.name, header.read_text(encoding="utf-8"))
        report = progress or (lambda step, share: None)
        report("running Verilator", _VERILATE_FROM)
        command = [str(verilator.program), *VERILATOR_FLAGS, *options, "--Mdir", str(work), *files, "edgemoe.v"]
        run(command, work, verilator.environment())
        prepare(work)
        sources = Sources(work, PREFIX, harness, ("verilated.cpp", "verilated_threads.cpp", *runtime), defines)
        objects = compile_objects(
            sources,
            verilator,
            cache,
            lambda share: report("compiling the simulator", _COMPILE_FROM + (1 - _COMPILE_FROM) * share),
        )
        link(objects, ["-shared"], work / _LIBRARY)
        for result in ("edgemoe.v", _LIBRARY):
            os.replace(work / result, folder / result)
        seal(folder / _LIBRARY)
        shutil.rmtree(work)

    cache = cache_root() / "verilator"
    return cached_folder(cache / key, _built, fill)


def _built(folder: Path) -> Path:
    """The library of an entry; ValueError where it is torn, since loading that would end the process."""
    if not is_sealed(folder / _LIBRARY):
        raise ValueError(f"{folder} is torn")
    return folder / _LIBRARY
