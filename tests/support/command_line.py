"""The command line in this process."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from edgemoe.cli.main import note_warning, run
from edgemoe.workloads import CalibrationWarning


@dataclass
class Outcome:
    """What a command did: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str, code: int = 1) -> None:
        """As :meth:`failed`, with nothing on stdout."""
        assert self.out == ""
        self.failed(*parts, code=code)

    def failed(self, *parts: str, code: int = 1) -> None:
        """A message of one line, the last one, that contains all ``parts``; there may have been results and notes."""
        assert self.code == code, self
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("edgemoe: ")] == lines[-1:], self.err
        for part in parts:
            assert part in self.err, self.err


class CommandLine:
    """``edgemoe`` with arguments; pytest's ``capsys`` gives what it prints."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Outcome:
        self._capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always", CalibrationWarning)
            warnings.showwarning = note_warning
            code = run([str(argument) for argument in arguments])
        return Outcome(code, *self._capsys.readouterr())

    def ok(self, *arguments: object) -> str:
        """What a command prints that must succeed."""
        done = self(*arguments)
        assert done.code == 0, done.err
        return done.out
