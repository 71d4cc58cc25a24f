"""All files are written by ``edgemoe_models.storage.atomic``, all JSON is read by ``storage.json_text``."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("hw", "models", "sim", "sw", "tools")
ATOMIC = "models/edgemoe_models/storage/atomic.py"

#: Who may write otherwise, by file and call, and why that leaves nothing torn.
MAY_WRITE = {
    (ATOMIC, "write_bytes"): "what is no regular file is written in place",
    (ATOMIC, "open"): "the file beside",
    (ATOMIC, "replace"): "its rename",
    (ATOMIC, "rename"): "a folder's",
    ("sw/edgemoe/reports/video_file.py", "VideoWriter"): "a file that appears whole",
    ("models/edgemoe_models/datasets/arrays.py", "open_memmap"): "in a folder that appears whole",
    ("models/edgemoe_models/train/logs.py", "open"): "a log, a row at a time",
    ("models/edgemoe_models/qat/loop.py", "open"): "a log, a row at a time",
    ("sim/edgemoe_sim/build.py", "replace"): "in a folder that appears whole",
    ("sim/edgemoe_sim/compilation.py", "replace"): "an object that the compiler has made, sealed afterwards",
    ("sim/edgemoe_sim/compilation.py", "copyfile"): "in a folder that appears whole",
    ("sw/edgemoe/boards/bitstream.py", "open"): "a tool's output, while it runs",
    ("sw/edgemoe/boards/fit.py", "open"): "a tool's output, while it runs",
    ("sw/edgemoe/boards/openxc7.py", "open"): "a tool's output, while it runs",
    ("sw/edgemoe/boards/flash.py", "copyfile"): "into a folder that appears whole",
    ("sw/edgemoe/boards/flash.py", "copytree"): "into a folder that appears whole",
    ("sw/edgemoe/boards/flash.py", "open"): "an archive that is sent and removed",
    ("tools/pack_photos.py", "open"): "an archive in memory",
    ("tools/side_by_side.py", "open"): "a process's output, while it runs",
    ("sw/edgemoe/cli/main.py", "open"): "the null device, for a pipe that was closed",
}
#: Who may parse JSON itself, and why.
MAY_PARSE = {
    "models/edgemoe_models/storage/json_text.py": "the reader",
    "hw/edgemoe_hw/spec/config.py": "hw imports no other package; files of users are read by edgemoe.configs",
    "sw/edgemoe/demo/view.py": "a client's half of the demo's own messages, for tests",
    "sw/edgemoe/extras.py": "pip's note on how this package was installed",
}
WRITERS = {
    "write_text", "write_bytes", "tofile", "savetxt", "savez", "savez_compressed", "save_file", "open_memmap",
    "copyfile", "copy", "copy2", "copytree", "move", "replace", "rename", "NamedTemporaryFile", "mkstemp", "dump",
    "VideoWriter",
}  # fmt: skip
#: What has a method of these names that writes no file, or writes it atomically.
OWNERS = {
    "copy": re.compile(r"."),  # arrays, dicts; shutil.copy is looked for below
    "replace": re.compile(r"^(?!os$)."),  # strings, dataclasses; os.replace is looked for
    "save": re.compile(r"(bundle|trainer|canvas|sheet|self)$|^build_bundle\("),
}
MODES = re.compile(r"[wax+]")


def calls(path: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Name, owner and node of every call; the owner is empty for a plain name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, ast.unparse(node.func.value), node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, "", node


def mode_of(call: ast.Call, place: int) -> str:
    """The mode that a call of ``open`` names, if it is a literal."""
    given = [k.value for k in call.keywords if k.arg == "mode"] or call.args[place : place + 1]
    return given[0].value if given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str) else ""


def writes(name: str, owner: str, call: ast.Call) -> bool:
    """Whether a call writes a file, or may."""
    if name == "open":
        opens_path = owner in ("", "io", "os", "tarfile", "zipfile", "gzip")
        return bool(MODES.search(mode_of(call, 1 if opens_path else 0)))
    if name == "save":
        if call.args and isinstance(call.args[0], ast.Name) and call.args[0].id in ("file", "content"):
            return False  # bytes in memory
        return not OWNERS["save"].search(owner) and owner not in ("safetensors.numpy", "")
    if name not in WRITERS or not owner:
        return False  # a plain name is the helper's, or an import that is looked at by its owner
    if owner == "shutil" and name == "copy":
        return True
    return not (name in OWNERS and OWNERS[name].search(owner))


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_files_are_written_by_one_helper():
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in sources()
        for name, owner, call in calls(path)
        if writes(name, owner, call)
    }
    assert found - MAY_WRITE.keys() == set(), "use edgemoe_models.storage.atomic, or say in MAY_WRITE why not"
    assert MAY_WRITE.keys() - found == set(), "no longer written: remove the entry"


def test_json_is_read_by_one_reader():
    found = {
        str(path.relative_to(ROOT))
        for path in sources()
        for name, owner, _ in calls(path)
        if name in ("loads", "load") and owner == "json" or name == "JSONDecoder"
    }
    assert found - MAY_PARSE.keys() == set(), "use edgemoe_models.storage.json_text, or say in MAY_PARSE why not"
    assert MAY_PARSE.keys() - found == set(), "no longer parsed: remove the entry"


def test_arrays_and_tensors_are_read_by_one_reader():
    banned = {("np", "load"), ("numpy", "load"), ("np", "memmap"), ("safetensors", "safe_open"), ("", "safe_open")}
    found = {
        str(path.relative_to(ROOT)) for path in sources() for name, owner, _ in calls(path) if (owner, name) in banned
    }
    assert found == {"models/edgemoe_models/storage/array_file.py"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("path.write_text('x')", True),
        ("write_text(path, 'x')", False),
        ("open(path, 'w')", True),
        ("open(path)", False),
        ("path.open('ab')", True),
        ("path.open()", False),
        ("tarfile.open(archive, mode='w')", True),
        ("np.save(path, x)", True),
        ("np.save(file, x)", False),
        ("image.save(path)", True),
        ("image.save(file, 'PNG')", False),
        ("onnx.save(model, path)", True),
        ("bundle.save(path)", False),
        ("safetensors.numpy.save_file(x, path)", True),
        ("os.replace(a, b)", True),
        ("text.replace('a', 'b')", False),
        ("dataclasses.replace(a, b=1)", False),
        ("shutil.copyfile(a, b)", True),
        ("shutil.copy(a, b)", True),
        ("array.copy()", False),
        ("json.dump(x, file)", True),
    ],
)
def test_the_rule(line, expected):
    call = ast.parse(line).body[0].value
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    assert writes(name, owner, call) is expected


def test_nobody_has_a_folder_of_his_own():
    """``storage.cache`` alone knows where results and caches lie: an installed edgemoe writes into no ``build``."""
    found = {
        str(path.relative_to(ROOT))
        for path in sources()
        if path.relative_to(ROOT).parts[0] != "tools"  # maintainers' commands, with a checkout
        for name, _, call in calls(path)
        if name == "Path" and call.args and re.match(r"['\"](build\b|~/\.cache)", ast.unparse(call.args[0]))
    }
    assert found == {"models/edgemoe_models/storage/cache.py"}
