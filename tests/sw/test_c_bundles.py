"""The C runtime's reader of bundles on damaged and hostile files, under AddressSanitizer: one line each, no more.

A file whose hash is right is refused, or it is as good as one can tell; whatever Python takes, C takes too.
"""

import copy
import json
import re
import struct

import numpy as np
import pytest

from edgemoe.bundle import METADATA_KEY, Bundle, BundleError
from edgemoe_hw.spec.isa import COMMAND_BYTES
from support import c_runtime
from support.bundles import at, parts_of, put, write_parts

EVIL = [
    *(None, True, False, "", "x", "\x00", "\u20ac", [], {}, [[]], {"a": 1}, 0.5, -0.0, 1e308),
    *(0, 1, -1, 2, 64, 255, 256, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63, 10**18, -(2**63)),
    *([0] * 6, [[0] * 6], "9" * 300, [1] * 70),
]


@pytest.fixture(scope="module")
def program():
    return c_runtime.build(variables=c_runtime.SANITIZED)


@pytest.fixture(scope="module")
def parts(joint_bundle, tmp_path_factory):
    return parts_of(joint_bundle, tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def content(joint_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "x.emoe"
    joint_bundle.save(path)
    return path.read_bytes()


def verdicts(program, files):
    """Of each file whether it is accepted; every refusal is one line that names the file."""
    done = c_runtime.run(program, "check", *files, status=1)
    accepted = {line.partition(": ")[0] for line in done.stdout.splitlines()}
    reasons = dict(re.fullmatch(r"edgemoe: (.*?): (.*)", line).groups() for line in done.stderr.splitlines())
    assert accepted.isdisjoint(reasons) and accepted | reasons.keys() == {str(file) for file in files}
    assert all(0 < len(reason) < 512 and reason.isprintable() for reason in reasons.values())
    return [str(file) in accepted for file in files]


def python_accepts(file):
    try:
        Bundle.load(file)
    except BundleError:
        return False
    return True


def is_number(text):
    return struct.pack("<Q", text)


def test_cut_off(program, content, tmp_path, rng):
    """Cut off anywhere, and longer than it says."""
    header = 8 + int.from_bytes(content[:8], "little")
    lengths = [*range(20), header - 1, header, header + 1, len(content) - 1]
    lengths += rng.integers(0, header, 60).tolist() + rng.integers(header, len(content), 40).tolist()
    files = []
    for number, length in enumerate(lengths):
        files.append(tmp_path / f"{number}.emoe")
        files[-1].write_bytes(content[:length])
    files.append(tmp_path / "longer.emoe")
    files[-1].write_bytes(content + b"\0")
    assert not any(verdicts(program, files))


def test_flipped_bits(program, content, tmp_path, rng):
    """Any one bit: the hash, or what comes before it, finds it."""
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(64), *rng.integers(64, 8 * header, 200), *rng.integers(8 * header, 8 * len(content), 100)]
    files = []
    for number, place in enumerate(places):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        files.append(tmp_path / f"{number}.emoe")
        files[-1].write_bytes(damaged)
    assert not any(verdicts(program, files))


def places_of(value, path=""):
    """Places of all values in a document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield f"{path}{key}"
        if isinstance(inner, (dict, list)):
            yield from places_of(inner, f"{path}{key}.")


def test_documents(program, parts, tmp_path, rng):
    """Any value replaced, removed or added, with a right hash."""
    document, tensors = parts
    places, files = list(places_of(document)), []
    general = [place for place in places if not re.search(r"\.outputs\.|\.phases\.\d", place)]
    for number in range(250):
        place = str(rng.choice(general if number % 2 else places))
        how = rng.integers(0, 8)
        changed = put(document, place, EVIL[rng.integers(len(EVIL))])
        if how == 0 and not place.startswith(("config.", "model.")):  # for these Python has defaults, and C has not
            changed = copy.deepcopy(document)
            owner, _, key = place.rpartition(".")
            owner = at(changed, owner)
            del owner[int(key) if isinstance(owner, list) else key]
        elif how == 1 and isinstance(at(document, place), dict):
            changed = put(document, f"{place}.more", EVIL[rng.integers(len(EVIL))])
        files.append(tmp_path / f"{number}.emoe")
        write_parts(files[-1], changed, tensors)
    compare(program, files)


def compare(program, files):
    """C takes what Python takes; what only C takes is what it does not look at."""
    found = verdicts(program, files)
    python = [python_accepts(file) for file in files]
    stricter = [str(file) for file, c, p in zip(files, found, python, strict=True) if p and not c]
    assert stricter == []
    assert sum(found) < len(files) / 2


def test_programs(program, parts, tmp_path, rng):
    """Bits of commands flipped, with a right hash."""
    document, tensors = parts
    names, files = [name for name in tensors if "program" in name], []
    for number in range(120):
        changed = dict(tensors)
        name = str(rng.choice(names))
        commands = changed[name] = tensors[name].copy()
        kept = commands.reshape(-1, COMMAND_BYTES)
        row = int(rng.integers(0, len(kept)))
        for bit in rng.integers(0, 256 if number % 2 else 8 * COMMAND_BYTES, 1 + number % 3):
            kept[row, bit // 8] ^= np.uint8(1 << bit % 8)
        files.append(tmp_path / f"{number}.emoe")
        write_parts(files[-1], document, changed)
    compare(program, files)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("format_version", 1, "its bundle format is not 2, which this runtime has"),
        ("isa_version", 3, "its ISA version is not 4"),
        ("more", 1, "document has an unknown member"),
        ("config.lanes_k", 16, "its config has hash"),
        ("config", {"name": "tiny"}, "act_depth is missing"),
        ("config.axi_bytes", 0, "axi_bytes must be 1 to 1048576, not 0"),
        ("config_hash", "0" * 64, "its config has hash"),
        ("model.patch", 5, "model small does not fit its config tiny"),
        ("model.prefix_tokens", 4096, "prefix_tokens must be 0 to 256, not 4096"),
        ("model.image_height", 2**40, "image_height must be 1 to 8192, not 1099511627776"),
        ("model.tasks.0.kind", "smell", "kind is unknown to this runtime"),
        ("model.tasks.1.name", "segmentation", "two tasks are called segmentation"),
        ("model.tasks.0.name", "../../x", "name must be letters, digits"),
        ("input_bytes", 64, "input_bytes is 64, but an image of the model needs"),
        ("tasks.depth.output_bytes", 2**32 - 1, "output_bytes is 4294967295, but the outputs end at byte"),
        ("tasks.depth.output_scale", "1", "output_scale must be a number"),
        ("tasks.depth.outputs.0.0", 2**32 - 2, "output_bytes is"),
        ("tasks.depth.outputs.0.2", 2**32 - 1, "outputs[0] is not inside its head"),
        ("tasks.depth.outputs.0.4", 1, "values of"),
        ("tasks.depth.outputs.0.5", 1, "outputs[0] is not inside its head"),
        ("tasks.depth.outputs.0", [0, 0, 1], "an output must be six numbers"),
        ("tasks.depth.phases", [], "phases must be 6"),
        ("tasks.depth.phases.0.estimated_cycles", 2**50, "estimated_cycles is out of range"),
        ("joint", [], "its tasks, programs and tensors are not as many as each other"),
        ("joint.0.images", 65, "images must be 1 to 64, not 65"),
        ("joint.0.tasks", ["depth", "segmentation"], "tasks, images and outputs are not those"),
        ("joint.2.images", 3, "tasks, images and outputs are not those"),
    ],
)
def test_tables(place, value, message, program, parts, tmp_path):
    write_parts(tmp_path / "x.emoe", put(parts[0], place, value), parts[1])
    assert message in c_runtime.refused(program, "check", tmp_path / "x.emoe")


def field(opcode, bit, width, value):
    """Set a field of the first command with this opcode."""

    def change(commands):
        row = next(row for row in commands.reshape(-1, COMMAND_BYTES) if row[0] & 15 == opcode)
        word = int.from_bytes(row.tobytes(), "little")
        word = word & ~(((1 << width) - 1) << bit) | value << bit
        row[:] = np.frombuffer(word.to_bytes(COMMAND_BYTES, "little"), np.uint8)
        return commands

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (field(1, 112, 32, 5), "BEGIN names another ISA version, configuration or number of commands"),
        (field(1, 144, 16, 5), "BEGIN names another ISA version, configuration or number of commands"),
        (field(2, 102, 32, 2**32 - 8), r"\(LOAD\) reads bytes 4294967288 to \d+ of region"),
        (field(2, 102, 32, 4), r"\(LOAD\) reads bytes 4 to"),
        (field(2, 182, 16, 65535), r"\(LOAD\) reads bytes"),
        (field(2, 100, 2, 2), r"\(LOAD\) names a memory or region that there is not"),
        (field(2, 96, 4, 9), r"\(LOAD\) names a memory or region that there is not"),
        (field(5, 96, 2, 0), r"\(STORE\) writes bytes .* of region 0"),
        (field(5, 98, 32, 2**32 - 64), r"\(STORE\) writes bytes 4294967232"),
        (field(3, 32, 16, 65535), r"waits for 65535 commands of engine 0, but \d+ come before it"),
        (field(6, 48, 16, 1), "waits for 1 commands of engine 1"),
        (field(3, 18, 14, 1), "has bits set that no field names"),
        (field(3, 500, 1, 1), "has bits set that no field names"),
        (field(3, 10, 8, 200), "is of a phase that there is not"),
        (field(3, 0, 4, 0), r"command \d+ has the illegal opcode 0"),
        (field(3, 0, 4, 6), "BEGIN is the first command, and END the last"),
        (lambda commands: commands[:64], "the program has 64 bytes, which are not 2 to 65535 commands of 64"),
        (lambda commands: commands[:-1], "which are not 2 to 65535 commands of 64"),
        (lambda commands: commands[:-64], "BEGIN names another ISA version, configuration or number of commands"),
    ],
)
def test_commands(change, message, program, parts, tmp_path):
    """What can lead a program out of its memory, or keep it from ending."""
    tensors = {**parts[1], "program.depth": change(parts[1]["program.depth"].copy())}
    write_parts(tmp_path / "x.emoe", parts[0], tensors)
    found = c_runtime.refused(program, "check", tmp_path / "x.emoe")
    assert "task depth" in found and re.search(message, found), found


def raw_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return is_number(len(text)) + text + data


def entry(begin, end, **changes):
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **changes}


META = {"__metadata__": {METADATA_KEY: "{}"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no bundle, or cut off"),
        (b"\0" * 7, "it is no bundle, or cut off"),
        (is_number(2**64 - 1) + b"{}", "it is no bundle, or cut off"),
        (is_number(2**63), "it is no bundle, or cut off"),
        (raw_file({}), "it is no bundle (a safetensors file without edgemoe_bundle)"),
        (raw_file([]), "its header is no JSON object"),
        (raw_file(b'{"a": 1, "a": 2}'), "a key comes twice in one object"),
        (raw_file(b'{"a": 1, "\\u0061": 2}'), "a key comes twice in one object"),
        (raw_file(b"[" * 100 + b"]" * 100), "more than 32 deep"),
        (raw_file(b"[" * 1_000_000), "more than 32 deep"),
        (raw_file(b"[" + b"1," * 2_000_000 + b"1]"), "it has too many values"),
        (raw_file(b'{"a": ' + b"1" * 1000 + b"}"), "too many digits"),
        (raw_file(b'{"a": 1e999}'), "not finite"),
        (raw_file(b'{"a": NaN}'), "a value is missing"),
        (raw_file(b'{"a": "\\ud800"}'), "it is not text in UTF-8"),
        (raw_file(b'{"a": "\xff"}'), "it is not text in UTF-8"),
        (raw_file(b'{"a": "\n"}'), "a string has a control character"),
        (raw_file(b'{"a": "\\x"}'), "an escape is unknown"),
        (raw_file(b'{"a": "'), "a string is cut off"),
        (raw_file(b'{"a": "\\u12'), "a \\u escape lacks digits"),
        (raw_file(b"{} {}"), "something follows it"),
        (raw_file({**META, "data": entry(0, 9)}, b"12345678"), "tensor data does not lie inside the file"),
        (raw_file({**META, "data": entry(8, 0, shape=[0])}, b"12345678"), "tensor data does not lie inside the file"),
        (raw_file({**META, "data": entry(0, 4), "graph": entry(2, 8)}, b"12345678"), "its tensors overlap"),
        (raw_file({**META, "data": entry(0, 4), "graph": entry(6, 8)}, b"12345678"), "have gaps"),
        (raw_file({**META, "data": entry(0, 4)}, b"12345678"), "it has 8 bytes of tensors, but its header tells of 4"),
        (raw_file({**META, "data": entry(0, 8, shape=[2**59])}, b"12345678"), "does not lie inside the file"),
        (raw_file({**META, "data": entry(0, 8, dtype="F32")}, b"12345678"), "tensor data must be uint8 [N]"),
        (raw_file({**META, "data": entry(0, 8, shape=[2, 4])}, b"12345678"), "tensor data must be uint8 [N]"),
        (raw_file({**META, "a\nb": entry(0, 8, shape=[[]])}, b"12345678"), "tensor a?b must be uint8 [N]"),
        (raw_file({**META, **{str(i): entry(0, 0) for i in range(300)}}), "it has more tensors than a bundle"),
        (raw_file(META), "document is missing"),
    ],
)
def test_file(content, message, program, tmp_path):
    (tmp_path / "x.emoe").write_bytes(content)
    assert message in c_runtime.refused(program, "check", tmp_path / "x.emoe")


def test_no_file(program, tmp_path):
    assert "No such file or directory" in c_runtime.refused(program, "check", tmp_path / "x.emoe")
    assert c_runtime.refused(program, "check", tmp_path) == f"{tmp_path}: Is a directory"
