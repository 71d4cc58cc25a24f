"""A fresh environment for ``make dist`` and the empty folder in which its commands run."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["Place"]


class Place:
    """An environment and the empty folder in which its commands run."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir(parents=True)
        subprocess.run([str(python), "-m", "venv", str(folder / "venv")], check=True)
        self.python = folder / "venv" / "bin" / "python"

    def install(self, *what: str) -> None:
        """As a user does it, with the newest packages that pyproject.toml allows."""
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise SystemExit(f"dist: {' '.join(command)} failed:\n{done.stderr}")

    def run(self, command: list[str], work: Path | None = None) -> tuple[int, str, str]:
        """Exit code, output and messages of a command in the environment."""
        program, *arguments = command
        environment = {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [str(self.python.parent / program), *arguments],
            cwd=work or self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    def installed_files(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file of our packages, to see whether something was written beside them."""
        (site,) = (self.folder / "venv" / "lib").glob("python*/site-packages")
        files = (path for folder in site.glob("edgemoe*") for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(site)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    def packages(self) -> int:
        """How many packages are installed, besides pip and setuptools."""
        listing = subprocess.run([self.python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True)
        names = [line.partition("==")[0] for line in listing.stdout.splitlines()]
        return len([name for name in names if name not in ("pip", "setuptools", "edgemoe")])
