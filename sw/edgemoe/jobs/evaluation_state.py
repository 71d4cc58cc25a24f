"""What an evaluation has found so far, in a file, so that one that was broken off goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.checks import FieldError
from edgemoe_models.storage.json_text import JsonError, read_json

__all__ = ["EvaluationState", "key_hash"]

_EVERY = 5.0  # seconds between two writes, or
_SHARE = 20  # times as long as a write takes
_LARGEST = 1 << 30  # bytes of a file
_NUMBER = 1 << 63
_PREDICTED = ("integer", "float", "agreement")


def key_hash(key: Mapping[str, str]) -> str:
    """Eight digits that stand for what is measured, for names of files."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:8]


class EvaluationState:
    """Records by the picture's name, each with a stamp of the picture's file; of another stamp, it counts as absent.

    Args:
        path: of the file; it is made with the first results
        key: what is measured, and with what: records of another key are none of this evaluation

    Raises:
        ValueError: the file is another evaluation's, or none
    """

    def __init__(self, path: Path, key: Mapping[str, str]) -> None:
        self.path, self._key = path, dict(key)
        self._records: dict[str, dict[str, Any]] = {}
        self._saved, self._took, self._changed = time.monotonic(), 0.0, False
        try:
            self._read(read_json(path, _LARGEST))
        except FileNotFoundError:
            pass
        except JsonError as error:
            raise ValueError(f"{error}: no results of an evaluation; remove it, or give another --state") from None
        except FieldError as error:
            raise ValueError(
                f"{path}: no results of an evaluation ({error}); remove it, or give another --state"
            ) from None

    def _read(self, stored: Any) -> None:
        entries = checks.record(stored, "it", ("evaluation", "records"))
        key = checks.record(entries["evaluation"], "evaluation", (), others=True)
        for name in sorted({*key, *self._key}):
            if key.get(name) != self._key.get(name):
                raise ValueError(
                    f"{self.path} has results of another {name.replace('_', ' ')} ({checks.shown(key.get(name))}, not "
                    f"{checks.shown(self._key.get(name))}); remove it, or give another --state"
                )
        records = checks.record(entries["records"], "records", (), others=True)
        for name, value in records.items():
            record = checks.record(value, f"the record of {checks.shown(name)}", ("stamp", "integer"), others=True)
            for field, numbers in record.items():
                if field not in ("stamp", *_PREDICTED):
                    raise FieldError(f"the record of {checks.shown(name)} must have no {checks.shown(field)}")
                for number in checks.items(numbers, field):
                    checks.integer(number, field, 0, _NUMBER)
        self._records = records

    def get(self, name: str, stamp: list[int]) -> dict[str, Any] | None:
        """What was found in a picture, if that is its stamp."""
        record = self._records.get(name)
        return record if record is not None and record["stamp"] == stamp else None

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Keep what was found; written now and then."""
        self._records[name], self._changed = record, True
        if time.monotonic() - self._saved > max(_EVERY, _SHARE * self._took):
            self.flush()

    def flush(self) -> None:
        """Write all that was found, if there is news.

        Raises:
            SaveError: it cannot be written; a file that was there before is unchanged
        """
        if not self._changed:
            return
        begin = time.monotonic()
        records = ",\n".join(f"{json.dumps(name)}: {json.dumps(record)}" for name, record in self._records.items())
        write_text(self.path, f'{{"evaluation": {json.dumps(self._key)},\n"records": {{\n{records}\n}}}}\n')
        self._saved = time.monotonic()
        self._took, self._changed = self._saved - begin, False
