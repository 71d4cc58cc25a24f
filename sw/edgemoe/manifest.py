"""The manifest beside a bitstream: which accelerator it is, its clock, and the hashes of its files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe_models.storage import checks
from edgemoe_models.storage.json_text import JsonError, read_json

__all__ = ["Manifest", "ManifestError", "read_manifest"]

_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_MOST_FILES = 16


class ManifestError(ValueError):
    """A file is no manifest; the message names it."""


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        path: of the manifest; its files are beside it
        config_name, config_hash: of the accelerator's configuration
        isa_version: of the commands it takes
        clock_mhz: what it was timed for
        files: sha256 by name, names without folders
        slack_ns: worst slack after place and route; None where it was not timed
    """

    path: Path
    config_name: str
    config_hash: str
    isa_version: int
    clock_mhz: float
    files: Mapping[str, str]
    slack_ns: float | None

    def changed_file(self) -> Path | None:
        """The first of its files that is missing, not ours to read, or not the one that it was written for."""
        for name, digest in self.files.items():
            file = self.path.parent / name
            try:
                is_same = file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == digest
            except OSError:
                is_same = False
            if not is_same:
                return file
        return None


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        FileNotFoundError: there is no such file
        ManifestError: it is none; the message names the file, and the field that is wrong
    """
    try:
        values = read_json(path, largest=1 << 20)
    except JsonError as error:
        raise ManifestError(str(error)) from None
    try:
        return _manifest(path, values)
    except checks.FieldError as error:
        raise ManifestError(f"{path}: not a bitstream's manifest: {error}") from None


def _manifest(path: Path, values: Any) -> Manifest:
    fields = checks.record(values, "it", ("config", "config_hash", "clock_mhz", "files"), others=True)
    config = checks.record(fields["config"], "config", ("name",), others=True)
    files = checks.record(fields["files"], "files", (), others=True)
    if len(files) > _MOST_FILES:
        raise checks.FieldError(f"files must be at most {_MOST_FILES}, not {len(files)}")
    for name, digest in files.items():
        if not _NAME.fullmatch(name):
            raise checks.FieldError(f"files must have names without folders, not {checks.shown(name)}")
        _check_hash(digest, f"files.{name}")
    slack = fields.get("wns_ns")
    return Manifest(
        path,
        checks.text(config["name"], "config.name"),
        _check_hash(fields["config_hash"], "config_hash"),
        checks.integer(fields.get("isa_version", 0), "isa_version", 0, 1 << 16),
        checks.number(fields["clock_mhz"], "clock_mhz", 0.001, 10_000),
        files,
        None if slack is None else checks.number(slack, "wns_ns", -1e6, 1e6),
    )


def _check_hash(value: object, name: str) -> str:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise checks.FieldError(f"{name} must be a sha256, not {checks.shown(value)}")
    return value
