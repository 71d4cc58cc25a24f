"""What a wheel and a source distribution must and must not hold."""

from __future__ import annotations

import email
import re
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["WHEEL_MIB", "files_of", "sdist_problems", "wheel_problems"]

#: Of these 14: 6 are the float weights, 5.5 two bundles, 2.7 two integer graphs.
WHEEL_MIB = 16

_IN_WHEEL = (
    *(f"{package}/py.typed" for package in ("edgemoe", "edgemoe_hw", "edgemoe_models", "edgemoe_sim")),
    *(f"edgemoe/bundles/m3vit-micro-{precision}-pynq-z2.emoe" for precision in ("w8a8", "w4a8")),
    *(f"edgemoe_models/weights/m3vit-micro{form}.safetensors" for form in ("", "-w8a8.graph", "-w4a8.graph")),
    *(f"edgemoe/boards/data/{name}/board.toml" for name in ("aup-zu3", "kr260", "kv260", "pynq-z2", "ultra96v2")),
    *(f"edgemoe/boards/data/{name}/board.toml" for name in ("zcu102", "zcu104")),
    *(f"edgemoe/boards/data/ulx3s/{name}" for name in ("target.toml", "ulx3s.v", "ulx3s.lpf")),
    "edgemoe/boards/data/build.tcl",
    *(f"edgemoe/demo/static/{name}" for name in ("index.html", "app.js", "style.css", "icon.svg")),
    "edgemoe/serve/haproxy.cfg",
    *(f"edgemoe/notebooks/{name}.ipynb" for name in ("quickstart", "inside_the_accelerator", "streaming")),
    "edgemoe/explorer/coefficients.json",
    "edgemoe_sim/harness.cpp",
    "edgemoe_sim/serial_harness.cpp",
    "edgemoe-*.dist-info/licenses/LICENSE",
)
_IN_SDIST = (
    *("pyproject.toml", "Makefile", "constraints.txt", "CHANGELOG.md", "CITATION.cff", "README.md", "LICENSE"),
    *(".ci/run", ".ci/check-tools", ".gitignore", "boards/build.tcl", "boards/kv260/board.toml", "docs/isa.md"),
    *("tests/conftest.py", "tests/hw/test_isa.py", "tests/support/golden.py", "tools/package_contents.py"),
    *(f"models/edgemoe_models/weights/m3vit-micro{form}.safetensors" for form in ("", "-w8a8", "-w4a8")),
    *("sw/c/Makefile", "sw/c/include/edgemoe.h", "sw/c/src/driver.c", "sw/c/example/edgemoe_run.c"),
)
#: Latent weights of quantization-aware training; tests, caches and what an editor leaves.
_TOO_LARGE = "*/m3vit-tiny-camvid*.safetensors"  # for both: only the repository has them
_NOT_IN_WHEEL = (_TOO_LARGE, "*-w8a8.safetensors", "*-w4a8.safetensors", "*test_*", "*.pyc", "*.orig", "*~", "*.so")
_NOT_IN_SDIST = (_TOO_LARGE, "*.pyc", "build/*", ".venv/*", ".git/*", "*.orig", "*~")
_RELATIVE = re.compile(r"\]\((?!https?://|#)|<img\b(?![^>]*src=\"https?://)")


def files_of(archive: Path) -> list[str]:
    """Names of the files in a wheel or sdist, of the latter without its folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return sorted(name for name in wheel.namelist() if not name.endswith("/"))
    with tarfile.open(archive) as sdist:
        return sorted(member.name.partition("/")[2] for member in sdist if member.isfile())


def wheel_problems(wheel: Path) -> list[str]:
    """What is wrong with a wheel, a line each."""
    names = files_of(wheel)
    problems = _listed(names, _IN_WHEEL, _NOT_IN_WHEEL)
    roots = {name.partition("/")[0] for name in names}
    strange = {root for root in roots if not re.fullmatch(r"edgemoe(_hw|_models|_sim)?|edgemoe-.*\.dist-info", root)}
    problems += [f"{root} is at the top, in everybody's site-packages" for root in sorted(strange)]
    size = wheel.stat().st_size / 2**20
    if size > WHEEL_MIB:
        problems.append(f"it has {size:.1f} MiB, more than {WHEEL_MIB}")
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_string(file.read(name).decode("utf-8"))
    return problems + _metadata_problems(metadata)


def _metadata_problems(metadata: email.message.Message) -> list[str]:
    problems = []
    if found := _RELATIVE.search(str(metadata.get_payload())):
        problems.append(f"its README has a picture or link into the checkout ({found[0]})")
    for requirement in metadata.get_all("Requires-Dist") or []:
        if "==" in requirement.partition(";")[0]:
            problems.append(f"it pins {requirement}: exact versions are for constraints.txt")
    return problems


def sdist_problems(sdist: Path) -> list[str]:
    """What is wrong with a source distribution, a line each."""
    return _listed(files_of(sdist), _IN_SDIST, _NOT_IN_SDIST)


def _listed(names: list[str], wanted: tuple[str, ...], unwanted: tuple[str, ...]) -> list[str]:
    missing = [pattern for pattern in wanted if not any(fnmatch(name, pattern) for name in names)]
    extra = [name for name in names for pattern in unwanted if fnmatch(name, pattern)]
    return [f"{name} is missing" for name in missing] + [f"{name} should not be there" for name in extra]
