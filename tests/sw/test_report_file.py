"""A report's file: written whole; whatever is wrong in it is one line that names the file and the field."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemoe.reports.cycles import summary, table
from edgemoe.reports.files import load_report, save_report

LAYER = {
    "name": "blocks.0.attention",
    "cycles": 28055.0,
    "bound_cycles": 20704.5,
    "macs": 7950528.0,
    "busy_cycles": 24065.0,
    "estimated_cycles": 27848.0,
    "stall_cycles": {"load": 1665.0, "matmul": 0.0},
}
TOTALS = {
    "cycles": 409698,
    "macs": 114896256,
    "bound_cycles": 340927,
    "ideal_cycles": 299209,
    "dram_bytes_read": 1613504,
    "dram_bytes_written": 53248,
    "dram_lower_bound_bytes": 1558112,
    "backbone_macs": 107425152,
    "backbone_cycles": 387258,
    "backbone_bound_cycles": 321471,
}
INFERENCE = {
    "task": "depth",
    "image": "demo-0",
    **TOTALS,
    "wasted_bytes": 0,
    "expert_tokens": {"blocks.1.moe": [30, 0, 57]},
}
REPORT = {
    "model": "m3vit-micro",
    "config": "pynq-z2",
    "config_hash": "adf4",
    "images": 1,
    "tasks": ["depth"],
    "inferences": 1,
    "bit_exact": True,
    "tensors_compared": 388,
    "mismatches": 0,
    **TOTALS,
    "wasted_bytes": 0,
    "mac_utilisation": 0.73,
    "roofline_efficiency": 0.83,
    "ideal_efficiency": 0.73,
    "macs_per_cycle": 384,
    "dram_bytes_per_cycle": 8,
    "dram_gb_per_second": 0.8,
    "dram_latency": 64,
    "dram_model": "plain",
    "assumed_clock_mhz": 100.0,
    "assumed_latency_ms": 4.1,
    "sim_seconds": 7.9,
    "sim_cycles_per_second": 208526.2,
    "metrics": {"depth": {"rmse": 0.54}},
    "layers": [LAYER],
    "per_inference": [INFERENCE],
}


def places(value, path=()):
    """Paths of all values that a report must have."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def put(path, value):
    report = copy.deepcopy(REPORT)
    owner = report
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    return report


def refused(file, text):
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_report(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and "\n" not in message and len(message) < 400
    return message


def test_round_trip(tmp_path):
    save_report(REPORT, tmp_path / "new" / "report.json")
    assert load_report(tmp_path / "new" / "report.json") == REPORT
    assert load_report(tmp_path / "new" / "report.json")["bit_exact"] is True


def test_a_metric_that_is_no_number_is_left_out(tmp_path):
    save_report(put(("metrics", "depth"), {"rmse": float("nan"), "abs_rel": 0.1}), tmp_path / "x")
    assert load_report(tmp_path / "x")["metrics"] == {"depth": {"abs_rel": 0.1}}


@pytest.mark.parametrize("path", list(places(REPORT)), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize(
    "value", [None, True, "x\ny", [[]], {"": {}}, {"a": 1}, -(2**62), 10**20, float("inf")], ids=str
)
def test_every_field(tmp_path, path, value):
    if path == ("bit_exact",) and (value is None or value is True):
        return
    if path == ("metrics",) and isinstance(value, dict) and value == {"": {}}:
        return  # a task that has no name: printed as it is
    if value == {"a": 1} and path[-1] in ("stall_cycles", "depth"):
        return  # other names, but numbers
    message = refused(tmp_path / "report.json", json.dumps(put(path, value)))
    names = [str(key) for key in path if isinstance(key, str)]
    assert any(name in message for name in names) or "finite" in message


@pytest.mark.parametrize("path", [path for path in places(REPORT) if path[-1] in TOTALS or path[-1] == "inferences"])
def test_zeros(tmp_path, path):
    if path[0] == "layers":  # a phase may have been hidden behind others
        return
    assert f"{path[-1]} must be an integer in 1.." in refused(tmp_path / "report.json", json.dumps(put(path, 0)))


@pytest.mark.parametrize("path", [path for path in places(REPORT) if isinstance(path[-1], str) and len(path) < 4])
def test_missing_fields(tmp_path, path):
    report = put(path, None)
    owner = report
    for key in path[:-1]:
        owner = owner[key]
    del owner[path[-1]]
    if path[0] == "metrics" and len(path) > 1 or path[-2:-1] == ("expert_tokens",):
        return
    assert f"lacks {path[-1]}" in refused(tmp_path / "report.json", json.dumps(report))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not JSON"),
        ("[]", "must be an object"),
        ("[" * 100_000, "more than 32 deep"),
        ('{"model": 1, "model": 2}', "the key 'model' comes twice"),
        ("\0", "it is not JSON"),
    ],
)
def test_what_is_no_report(tmp_path, text, message):
    assert message in refused(tmp_path / "report.json", text)
    with pytest.raises(ValueError, match="none.json: there is no report; run edgemoe sim first"):
        load_report(tmp_path / "none.json")
    with pytest.raises(ValueError, match="cannot be read"):
        load_report(tmp_path)


EVIL = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.floats(), st.text(max_size=4),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(list(places(REPORT))), EVIL)
def test_what_is_accepted_can_be_printed(tmp_path, path, value):
    (tmp_path / "report.json").write_text(json.dumps(put(path, value)))
    try:
        report = load_report(tmp_path / "report.json")
    except ValueError as error:
        assert str(error).startswith(str(tmp_path / "report.json"))
        return
    assert str(table(report)) and all(isinstance(line, str) for line in summary(report))
