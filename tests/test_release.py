"""The tag's text, and what a release waits for; the files around the repository that nothing else reads."""

import re
from pathlib import Path

import pytest
from release import problems, tag_text, version

import edgemoe

ROOT = Path(__file__).parents[1]
CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-05-04

### Added

- **A thing**, see [its page](docs/thing.md).

## [1.2.2]
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "sw" / "edgemoe").mkdir(parents=True)
    (tmp_path / "sw" / "edgemoe" / "version.py").write_text('__all__ = []\n__version__ = "1.2.3"\n')
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.2.3\nauthors:\n")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def test_text(root):
    """Nothing in it begins with ``#``, which git would drop."""
    assert problems(root) == []
    text = "edgemoe 1.2.3\n\nReleased 2026-05-04.\n\nAdded:\n\n- A thing, see its page.\n"
    assert tag_text(root) == text


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("CHANGELOG.md", "[1.2.3]", "[1.2.4]", "CHANGELOG.md has nothing about 1.2.3"),
        ("CHANGELOG.md", " - 2026-05-04", "", r"CHANGELOG.md has no date beside [1.2.3]"),
        ("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n- new\n", "CHANGELOG.md has unreleased lines"),
        ("CITATION.cff", "1.2.3", "1.2.30", "CITATION.cff has another version than 1.2.3"),
    ],
)
def test_what_it_waits_for(root, file, old, new, message):
    path = root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    (found,) = problems(root)
    assert found.startswith(message)


def test_this_version():
    """What is not released yet may stand in the changelog; all else agrees at any time."""
    assert version() == edgemoe.__version__
    assert [line for line in problems() if "unreleased lines" not in line] == []
    assert tag_text().startswith(f"edgemoe {edgemoe.__version__}\n")


def test_hooks_fetch_nothing():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"} and set(re.findall(r"language: (\S+)", text)) == {
        "system"
    }
    targets = re.findall(r"entry: make (\S+)", text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets and all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def test_continuous_integration_is_one_script():
    """The workflow calls what anybody can call; the script's parts are targets of the Makefile."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"run: (.*)", workflow) == [".ci/run"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"make (\w+) PYTHON", script) == ["lint", "formal", "test", "dist"]
    assert all((ROOT / ".ci" / name).stat().st_mode & 0o111 for name in ("run", "core", "check-tools"))
