"""What a person should know about how pictures were read: each kind of thing once, however many pictures have it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from edgemoe_models.pictures.files import shown

__all__ = ["Notes", "PictureWarning"]


class PictureWarning(UserWarning):
    """A picture was read in a way that its owner may not expect."""


def _warn(text: str) -> None:
    warnings.warn(text, PictureWarning, stacklevel=4)


class Notes:
    """Tells each kind of note once, naming the first picture. One object serves a whole stream, from any thread.

    Args:
        tell: gets each note as one line; default: a Python warning, ``PictureWarning``
    """

    def __init__(self, tell: Callable[[str], None] = _warn) -> None:
        self._tell = tell
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def say(self, text: str, path: Path | str) -> None:
        """Tell ``text``, which is the same for all pictures of a kind, unless it has been told."""
        with self._lock:
            if text in self._told:
                return
            self._told.add(text)
        self._tell(f"{text} ({shown(path)}, and others like it)")
