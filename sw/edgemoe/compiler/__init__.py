"""From integer graph and accelerator configuration to command programs and bundles."""

from edgemoe.compiler.emit import build_bundle, to_bundle
from edgemoe.compiler.errors import CompileError, CompilerOptions
from edgemoe.compiler.joining import joint_programs
from edgemoe.compiler.program import CompiledModel, Program, compile_graph

__all__ = [
    "CompileError",
    "CompiledModel",
    "CompilerOptions",
    "Program",
    "build_bundle",
    "compile_graph",
    "joint_programs",
    "to_bundle",
]
