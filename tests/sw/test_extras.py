"""Install commands in messages: for what the running code was installed from, since no index has it."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import edgemoe
from edgemoe.extras import install_command, installed_from

ROOT = Path(__file__).parents[2]


def test_checkout(tmp_path, monkeypatch):
    assert installed_from() == ROOT
    monkeypatch.chdir(ROOT)
    assert install_command("sim") == "pip install -e '.[sim]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("sim", "synth") == f"pip install -e '{ROOT}[sim,synth]'"


def test_path_with_a_space(tmp_path):
    folder = tmp_path / "my projekt ü"
    folder.mkdir()
    assert install_command("demo", source=folder) == f"pip install -e '{folder}[demo]'"


def installed(folder: Path, note: object) -> Path:
    """An installed copy of the module and its errors alone, with pip's note of where it came from."""
    package, info = folder / "edgemoe", folder / "edgemoe-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    for name in ("extras.py", "errors.py"):
        (package / name).write_text((Path(edgemoe.__file__).parent / name).read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgemoe\nVersion: 1.0\n")
    if note is not None:
        (info / "direct_url.json").write_text(note if isinstance(note, str) else json.dumps(note))
    return folder


def command_of(folder: Path) -> str:
    code = "from edgemoe.extras import install_command; print(install_command('sim'))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_wheel(tmp_path):
    """The file that it was installed from, while it is there; else a placeholder for it."""
    wheel = tmp_path / "my files" / "edgemoe-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w"):
        pass
    folder = installed(tmp_path / "site", {"url": wheel.as_uri(), "archive_info": {}})
    assert command_of(folder) == f"pip install '{wheel}[sim]'"
    wheel.unlink()
    assert command_of(folder).startswith("pip install 'edgemoe-VERSION-py3-none-any.whl[sim]'")


def test_no_or_strange_note(tmp_path):
    for number, note in enumerate([None, "{", "[]", {"url": 3}, {"url": "https://host/edgemoe.whl"}]):
        assert "edgemoe-VERSION" in command_of(installed(tmp_path / str(number), note))


def test_nothing_names_an_index():
    """No message or page tells to install edgemoe by its name alone: it is on no index."""
    name = re.compile(r"pip install [^\n]*?(?<![\w./-])edgemoe(?![\w./-])")
    folders = [ROOT / top for top in ("hw", "models", "sim", "sw", "docs", "tools", "boards")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".md", ".ipynb", ".sh"}]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in [*files, ROOT / "README.md", ROOT / "Makefile"]
        for match in name.finditer(path.read_text(encoding="utf-8"))
    ]
    assert files and found == []
