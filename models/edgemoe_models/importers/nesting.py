"""Which of the dictionaries in a torch file is the state dict, also where the file is not loaded."""

from __future__ import annotations

import itertools
import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemoe_models.importers.options import ImportRefused
from edgemoe_models.storage.checks import shown

#: Where training scripts keep a network's state dict, the likeliest first.
_KEYS = (
    *("model", "state_dict", "model_state_dict", "module", "net", "network", "params", "weights"),
    *("student", "teacher", "encoder", "backbone", "target_encoder", "online"),
    *("model_ema", "state_dict_ema", "ema", "ema_model", "ema_state"),
)
#: Where they keep what they were told.
_ARGUMENTS = ("args", "config", "cfg", "hyper_parameters", "hparams", "model_args", "model_config")
_DEEPEST = 4
_LARGEST_PICKLE = 1 << 26  # bytes; the tensors' are not in it
_MOST_STEPS = 1_000_000


def select_state(content: Any, key: str | None = None) -> tuple[Mapping[Any, Any], str | None]:
    """The state dict in what a torch file holds, and a note where there was a choice.

    Args:
        content: of the file
        key: under which it is, dots between nested ones; None: wherever scripts keep it

    Raises:
        ImportRefused: there is none, or none under this key
    """
    found = dict(_state_dicts(content, set()))
    if key is not None:
        if key not in found:
            raise ImportRefused(f"there is no state dict under {key!r}; there are: {_listed(found)}")
        return found[key], None
    known = [name for name in found if not name or set(name.split(".")) <= set(_KEYS)]
    if known:
        best = min(known, key=lambda name: [_KEYS.index(part) for part in name.split(".") if part])
        others = [name for name in found if name != best and not name.startswith(f"{best}.")]
        note = f"the tensors under {best!r}; the file also has {_listed(others)} (--key)" if others and best else None
        return found[best], note
    if found:
        raise ImportRefused(f"the state dict may be under {_listed(found)}: say so with --key")
    for _ in range(_DEEPEST):
        inner = [content[name] for name in _KEYS if isinstance(content, Mapping) and name in content]
        content = inner[0] if inner else content
    if not isinstance(content, Mapping) or not content:
        raise ImportRefused(f"the file must hold a state dict (names and tensors), not {type(content).__name__}")
    return content, None


def kept_arguments(content: Any) -> dict[str, int | float | str]:
    """What a training script was told, where it kept that beside the state dict: its plain values by name."""
    found: dict[str, int | float | str] = {}
    for key in _ARGUMENTS:
        inner = content.get(key) if isinstance(content, Mapping) else None
        for name, value in inner.items() if isinstance(inner, Mapping) else ():
            if isinstance(name, str) and isinstance(value, int | float | str) and not isinstance(value, bool):
                found.setdefault(name, value)
    return found


def _listed(names: Any) -> str:
    return ", ".join(shown(name) if name else "the top" for name in names) or "none"


def _state_dicts(content: Any, seen: set[int], path: str = "") -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Dictionaries of names and tensors by their keys, each once."""
    if not isinstance(content, Mapping) or id(content) in seen or path.count(".") > _DEEPEST:
        return
    seen.add(id(content))
    if any(hasattr(value, "detach") for value in content.values()):
        yield path, content
        return
    for name, inner in content.items():
        if isinstance(name, str) and name.isprintable() and "." not in name:
            yield from _state_dicts(inner, seen, f"{path}.{name}" if path else name)


def advice(path: Path) -> str:
    """How to save the state dict of a file that is not loaded alone, with the file's own key."""
    found = _own_key(path)
    kept = {None: "['state_dict']", "": "", ".": ".state_dict()"}.get(found, f"[{found!r}]")
    return f"torch.save(torch.load(FILE, weights_only=False){kept}, NEW)"


def _own_key(path: Path) -> str | None:
    """The key of the dictionary whose names look like tensors': "" if it is the outermost, "." if a module is.

    The pickle is read, not executed: a dictionary's key is the text before it, and its first name the text after.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as file:
                content = file.read(_LARGEST_PICKLE)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, StopIteration, RuntimeError):
        return None
    try:
        return _key_of_names(itertools.islice(pickletools.genops(content), _MOST_STEPS))
    except Exception:  # a damaged pickle ends in any of Python's errors
        return None


def _key_of_names(steps: Iterable[Any]) -> str | None:
    texts: list[str] = []  # those before this step that may be a dictionary's key, or a class's module and name
    memo: dict[int, str] = {}
    memoized, key, is_first, pushed = 0, "", True, ""
    for opcode, argument, _ in steps:
        name = opcode.name
        if name in ("GLOBAL", "STACK_GLOBAL", "EMPTY_DICT"):
            what = argument
            if name == "STACK_GLOBAL":
                what, texts = " ".join(texts[-2:]), texts[:-2]
            is_dictionary = what in (None, "collections OrderedDict")
            if is_first and not is_dictionary:
                return "."
            is_first = False
            key = (texts[-1] if texts else "") if is_dictionary else key
            texts = []
        elif name == "MEMOIZE" or name.endswith("PUT"):
            memo[memoized if argument is None else argument] = pushed
            memoized += 1
            continue
        pushed = memo.get(argument, "") if name.endswith("GET") else argument if name.endswith("UNICODE") else ""
        if pushed:
            if pushed.endswith((".weight", ".bias", "cls_token", "pos_embed")):
                return key
            texts.append(pushed)
    return None
