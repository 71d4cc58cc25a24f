"""TOML of others: one error, whatever is wrong."""

import pytest

from edgemoe_models.storage.toml_text import TomlError, read_toml


def test_reads(tmp_path):
    (tmp_path / "x.toml").write_text('a = "é"\n[b]\nc = [1, 2.5]\n', encoding="utf-8")
    assert read_toml(tmp_path / "x.toml") == {"a": "é", "b": {"c": [1, 2.5]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a =", "not readable as TOML: "),
        (b"a = 1\na = 2\n", "not readable as TOML: "),
        (b"\xff", "not readable as TOML: 'utf-8' codec"),
        (b"a = " + b"[" * 20_000, "nested too deep, or impossible"),
        (b"a = " + b"9" * 5000, "nested too deep, or impossible"),
        (b"a = 2024-13-45\n", "not readable as TOML: "),
        (b"#" * 1_100_000, "it has more than 1,048,576 bytes of TOML"),
    ],
)
def test_refuses(tmp_path, content, message):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(TomlError, match=message):
        read_toml(tmp_path / "x.toml")


def test_what_is_no_file(tmp_path):
    for path in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(TomlError, match="not readable as TOML: "):
            read_toml(path)
