"""A bitstream's manifest: what is damaged or somebody else's is one line that names the file."""

import hashlib
import json

import pytest

from edgemoe.manifest import ManifestError, read_manifest
from edgemoe_hw.spec.config import PRESETS

CONFIG = PRESETS["pynq-z2"]
BIT = b"bits"
GOOD = {
    "board": "pynq-z2",
    "clock_mhz": 100,
    "config": CONFIG.to_dict(),
    "config_hash": CONFIG.content_hash,
    "isa_version": 2,
    "wns_ns": 0.25,
    "files": {"a.bit": hashlib.sha256(BIT).hexdigest()},
}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.bit").write_bytes(BIT)
    return tmp_path / "a.json"


def test_reads(path):
    path.write_text(json.dumps(GOOD))
    found = read_manifest(path)
    assert (found.config_name, found.config_hash, found.clock_mhz) == ("pynq-z2", CONFIG.content_hash, 100.0)
    assert found.isa_version == 2 and found.slack_ns == 0.25 and found.changed_file() is None
    (path.parent / "a.bit").write_bytes(b"other")
    assert found.changed_file() == path.parent / "a.bit"
    (path.parent / "a.bit").unlink()
    assert found.changed_file() == path.parent / "a.bit"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": 1}, "config must be an object, not 1"),
        ({"config": {}}, "config lacks name"),
        ({"config_hash": "x"}, "config_hash must be a sha256, not 'x'"),
        ({"clock_mhz": "fast"}, "clock_mhz must be a finite number in 0.001..10000, not 'fast'"),
        ({"clock_mhz": 0}, "clock_mhz must be a finite number"),
        ({"clock_mhz": True}, "clock_mhz must be a finite number"),
        ({"isa_version": "2"}, "isa_version must be an integer"),
        ({"files": []}, "files must be an object"),
        ({"files": {"../a.bit": "0" * 64}}, "files must have names without folders, not '../a.bit'"),
        ({"files": {"/etc/passwd": "0" * 64}}, "files must have names without folders"),
        ({"files": {"..": "0" * 64}}, "files must have names without folders"),
        ({"files": {"": "0" * 64}}, "files must have names without folders"),
        ({"files": {"a.bit": 1}}, "files.a.bit must be a sha256, not 1"),
        ({"files": {f"{n}.bit": "0" * 64 for n in range(20)}}, "files must be at most 16, not 20"),
        ({"wns_ns": "good"}, "wns_ns must be a finite number"),
    ],
)
def test_refuses(path, change, message):
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ManifestError, match=f"{path}: not a bitstream's manifest: {message}"):
        read_manifest(path)


def test_refuses_what_is_none(path):
    for text in ("", "[" * 100_000, "[]", "{}"):
        path.write_text(text)
        with pytest.raises(ManifestError, match=f"^{path}: "):
            read_manifest(path)
    with pytest.raises(FileNotFoundError):
        read_manifest(path.with_name("none.json"))
