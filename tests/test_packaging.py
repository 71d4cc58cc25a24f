"""Wheel and source distribution, built here, and what pyproject.toml says. ``make dist`` installs and tries both."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from package_contents import files_of, sdist_problems, wheel_problems

import edgemoe
from edgemoe.extras import EXTRAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with both, built without a network by the hatchling that the tests' environment has."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture
def sdist(built):
    (path,) = built.glob("*.tar.gz")
    return path


def test_contents(wheel, sdist):
    """The wheel is built from the sdist, so the sdist can be built upon."""
    assert wheel_problems(wheel) == []
    assert sdist_problems(sdist) == []
    assert wheel.name == f"edgemoe-{edgemoe.__version__}-py3-none-any.whl"


def test_every_source_is_in_the_wheel(wheel):
    """All files of the four packages and of boards/, but the latent weights and those that only the repository has.

    The C runtime is for the sdist: nothing in site-packages compiles it.
    """
    places = {"hw": "", "models": "", "sim": "", "sw": "", "boards": "edgemoe/boards/data/"}
    listing = subprocess.run(["git", "ls-files", *places], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("this is no git checkout")
    names = [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]
    sources = {places[top] + rest for top, _, rest in (name.partition("/") for name in names)}
    left_out = {f"edgemoe_models/weights/m3vit-micro-{precision}.safetensors" for precision in ("w8a8", "w4a8")}
    left_out |= {name for name in sources if name.startswith("edgemoe_models/weights/m3vit-tiny-camvid")}
    left_out |= {name for name in sources if name.startswith("c/")}
    assert sources - set(files_of(wheel)) == left_out


def test_the_large_weights_are_in_the_repository_only(wheel, sdist):
    names = [*files_of(wheel), *files_of(sdist)]
    assert [name for name in names if "camvid" in name and name.endswith(".safetensors")] == []
    assert sdist.stat().st_size < 40 << 20


def test_what_would_be_found(wheel, sdist, tmp_path):
    """Each kind of mistake."""
    bad = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name.endswith("METADATA"):
                text = text.replace(b"Requires-Dist: numpy>=1.21", b"Requires-Dist: numpy==1.26.4")
                text += b"![x](docs/x.png)\n"
            if not name.endswith("py.typed"):
                new.writestr(name.replace("edgemoe_sim/", "tools/"), text)
        new.writestr("edgemoe_models/weights/m3vit-micro-w8a8.safetensors", bytes(17 << 20))
        new.writestr("edgemoe_models/weights/m3vit-tiny-camvid-00001-of-00002.safetensors", b"")
    problems = "\n".join(wheel_problems(bad))
    for message in (
        "edgemoe/py.typed is missing",
        "edgemoe_sim/harness.cpp is missing",
        "m3vit-micro-w8a8.safetensors should not be there",
        "m3vit-tiny-camvid-00001-of-00002.safetensors should not be there",
        "tools is at the top, in everybody's site-packages",
        "MiB, more than 16",
        "its README has a picture or link into the checkout",
        "it pins numpy==1.26.4: exact versions are for constraints.txt",
    ):
        assert message in problems
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(ROOT / "LICENSE", "edgemoe-1/LICENSE")
        tar.add(ROOT / "LICENSE", "edgemoe-1/build/x")
    found = sdist_problems(tmp_path / "x.tar.gz")
    assert (
        "Makefile is missing" in found and "build/x should not be there" in found and "LICENSE is missing" not in found
    )


def test_version_is_in_one_place():
    """``edgemoe.__version__``; the citation and the changelog follow it."""
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "sw/edgemoe/version.py"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == edgemoe.__version__
    versions = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == "Unreleased" and edgemoe.__version__ == versions[1]


def names(requirements):
    return {re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_requirements():
    """NumPy from 1.21 on, for boards; nothing pinned; cocotb for tests only; what is not for all has its extra."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    everything = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    assert "numpy>=1.21" in project["dependencies"]
    assert [line for line in everything if "==" in line.partition(";")[0]] == []
    assert [name for name, lines in extras.items() if names(lines) & {"cocotb", "cocotbext-axi"}] == ["dev"]
    assert EXTRAS.keys() <= extras.keys()


def test_every_requirement_has_its_reason():
    """A comment on its line, or before it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    lines = block.splitlines()
    bare = [
        line
        for before, line in zip(lines, lines[1:], strict=False)
        if line.startswith('  "') and " # " not in line and not before.lstrip().startswith("#")
    ]
    assert bare == []


def test_pinned_versions_cover_what_is_required():
    """Every direct requirement has its tested version."""
    pins = names(line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line)
    extras = PROJECT["project"]["optional-dependencies"]
    required = names([*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)])
    assert required - pins == set()
