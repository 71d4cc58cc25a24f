"""From integer graph and accelerator configuration to command programs."""

from edgemoe.compiler.errors import CompileError, CompilerOptions
from edgemoe.compiler.program import CompiledModel, Program, compile_graph

__all__ = ["CompileError", "CompiledModel", "CompilerOptions", "Program", "compile_graph"]
