"""JSON of others: limits and refusals, each in one line."""

import json
import math
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemoe_models.storage.json_text import DEEPEST, JsonError, parse_json, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(width=32).filter(math.isfinite) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_reads_what_python_writes(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    try:
        raw = text.encode()
    except UnicodeEncodeError:  # lone surrogates, which Hypothesis draws
        with pytest.raises(JsonError, match="not text in UTF-8"):
            parse_json(text)
        return
    try:
        found = parse_json(raw)
    except JsonError as error:
        assert "UTF-8" in str(error) or "deep within" in str(error)
    else:
        assert found == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not JSON: Expecting value"),
        ("{", "it is not JSON"),
        (b"\xff\xfe", "not text in UTF-8"),
        ('"\\ud800"', "not text in UTF-8"),
        ('{"a": "\\udc00 "}', "not text in UTF-8"),
        ("NaN", "it holds NaN, which is no finite number"),
        ("[1, -Infinity]", "it holds -Infinity, which is no finite number"),
        ("1e999", "it holds 1e999, which is no finite number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' comes twice"),
        ("9" * 26, "a number in it has more than 25 digits"),
        ("[" * 100_000, f"more than {DEEPEST} deep"),
        ('{"a":' * 100_000, f"more than {DEEPEST} deep"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} deep"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(JsonError, match=message) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200


def test_brackets_and_digits_in_strings_count_for_nothing():
    text = json.dumps(["[" * 1000, '\\"[{' * 100, "9" * 1000])
    assert parse_json(text) == json.loads(text)
    assert parse_json("[" * DEEPEST + "]" * DEEPEST) is not None
    assert parse_json('"\\ud83d\\ude00"') == "😀"


def test_size_is_looked_at_first(tmp_path):
    with pytest.raises(JsonError, match="it has 11 bytes of JSON, and at most 10 are read"):
        parse_json(" " * 11, largest=10)
    (tmp_path / "x").write_bytes(b" " * 100)
    with pytest.raises(JsonError, match="x: it has 11 bytes of JSON, and at most 10 are read"):
        read_json(tmp_path / "x", largest=10)


@pytest.mark.parametrize("text", ['"' + '\\"' * 500_000, '"' * 1_000_001, "[]," * 300_000, "9" * 1_000_000])
def test_nothing_takes_long(text):
    begin = time.process_time()
    with pytest.raises(JsonError):
        parse_json(text)
    assert time.process_time() - begin < 2


def test_recursion_limit_does_not_matter():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        with pytest.raises(JsonError, match="deep within"):
            parse_json("[" * 1_000_000)
    finally:
        sys.setrecursionlimit(limit)


def test_files_are_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(JsonError, match=r"x\.json: it is not JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")
    with pytest.raises(JsonError, match="cannot be read"):
        read_json(tmp_path)
    (tmp_path / "x.json").write_text('{"a": [1, 2.5, null]}')
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5, None]}
