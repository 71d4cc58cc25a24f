"""Scenes, seeded weights and integer graphs have the same bits with every BLAS kernel, thread count and SIMD width.

``same_bits.json`` holds what they are, so that every machine that runs this test proves it too. Where a change of the
arithmetic is meant: ``python tests/support/digests.py all > tests/models/same_bits.json``.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgemoe_models

HERE = Path(__file__).parent
DIGESTS = HERE.parent / "support" / "digests.py"
EXPECTED = json.loads((HERE / "same_bits.json").read_text())
PACKAGE = Path(edgemoe_models.__file__).parent

#: OpenBLAS's kernels of x86-64, and what a processor must have to run them.
KERNELS = {
    "Nehalem": ("SSE42",),
    "Haswell": ("AVX2", "FMA3"),
    "Zen": ("AVX2", "FMA3"),
    "SkylakeX": ("AVX512F", "AVX512_SKX"),
}
#: What NumPy's loops may be compiled for, by what is taken from them.
WIDTHS = {"no AVX-512": ("AVX512",), "no AVX2 and FMA": ("AVX512", "AVX2", "FMA3")}


def cpu_features() -> dict[str, bool]:
    core = getattr(np, "_core", None) or np.core  # NumPy 2, NumPy 1
    features: dict[str, bool] = core._multiarray_umath.__cpu_features__
    return features


FEATURES = cpu_features()


def run(which: str, **variables: str) -> dict[str, str]:
    """The digests that a process with these environment variables computes."""
    cleared = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES")
    environment = {name: value for name, value in os.environ.items() if name not in cleared}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **variables}
    result = subprocess.run([sys.executable, DIGESTS, which], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    digests: dict[str, str] = json.loads(result.stdout)
    return digests


def check(digests: dict[str, str]) -> None:
    assert digests == {name: EXPECTED[name] for name in digests}


@pytest.fixture(scope="module")
def plain_products() -> dict[str, str]:
    """What a plain float32 product gave, by kernel: filled by the tests, to show that the kernels were different."""
    return {}


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_blas_kernel(kernel, plain_products):
    if missing := [feature for feature in KERNELS[kernel] if not FEATURES.get(feature)]:
        pytest.skip(f"not shown for OpenBLAS's {kernel} kernel: this processor has no {', '.join(missing)}")
    digests = run("quick", OPENBLAS_CORETYPE=kernel)
    plain_products[kernel] = digests.pop("plain")
    check(digests)


def test_kernels_were_different(plain_products):
    if len(plain_products) < 2 or "openblas" not in np.__config__.CONFIG["Build Dependencies"]["blas"]["name"]:
        pytest.skip(f"OpenBLAS's kernels cannot be chosen here; tried: {', '.join(plain_products) or 'none'}")
    assert len(set(plain_products.values())) > 1


@pytest.mark.parametrize("threads", [1, 2])
def test_every_number_of_threads(threads):
    digests = run("quick", OPENBLAS_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    del digests["plain"]
    check(digests)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_simd_width(width):
    core = getattr(np, "_core", None) or np.core
    dispatched = core._multiarray_umath.__cpu_dispatch__
    off = [name for name in dispatched if name.startswith(WIDTHS[width]) and FEATURES.get(name)]
    if not off:
        pytest.skip(f"not shown for {width}: this processor, or this NumPy, has none of {', '.join(WIDTHS[width])}")
    digests = run("quick", NPY_DISABLE_CPU_FEATURES=" ".join(off))
    del digests["plain"]
    check(digests)


@pytest.mark.slow
def test_presets():
    check(run("full"))


# --- The rule that makes it so ---------------------------------------------------------------------------------------

#: What ends in an integer graph: weights, pictures, activations, scales.
SOURCES = (
    PACKAGE / "float_reference.py",
    PACKAGE / "random_weights.py",
    *(PACKAGE / "ptq" / f"{name}.py" for name in ("calibrate", "layers", "options", "quantize", "quantizer", "search")),
    PACKAGE / "datasets" / "scenes.py",
    PACKAGE / "datasets" / "raycast.py",
    *sorted((PACKAGE / "importers").glob("*.py")),
)
#: Methods and functions whose order of additions, or whose last bits, NumPy, BLAS or the C library choose.
REDUCTIONS = {"sum", "mean", "std", "var", "dot", "vdot", "inner", "trace", "prod", "cumsum", "average"}
REDUCTIONS |= {"matmul", "einsum", "tensordot", "convolve", "interp", "percentile", "quantile", "median", "linalg"}
FUNCTIONS = {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "power", "float_power", "cbrt", "hypot"}
FUNCTIONS |= {"sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "arctan2", "asin", "acos"}
FUNCTIONS |= {"atan", "atan2", "erf", "erfc", "geomspace", "logspace"}


def is_machine_dependent(node: ast.AST) -> bool:
    """Whether this piece of source computes with something that is not the same everywhere."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return not (isinstance(node.left, ast.Constant) and node.left.value == 2)  # powers of two are exact
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("np", "math"):
        return node.attr in FUNCTIONS or (node.attr in REDUCTIONS and node.value.id == "np")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REDUCTIONS:
        return not (isinstance(node.func.value, ast.Name) and node.func.value.id in ("np", "math"))
    return False


def machine_dependent(source: str) -> list[str]:
    """Lines of source that are machine-dependent."""
    tree = ast.parse(source)
    return [f"{node.lineno}: {ast.unparse(node)}" for node in ast.walk(tree) if is_machine_dependent(node)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_ends_in_a_graph_is_left_to_the_machine(source):
    assert machine_dependent(source.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line", ["y = x @ w", "y = x.sum(0)", "y = np.exp(x)", "y = math.log2(x)", "y = x**3", "y = np.linalg.solve(a, b)"]
)
def test_the_rule_finds(line):
    assert len(machine_dependent(line)) == 1
