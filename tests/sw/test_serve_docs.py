"""docs/serve.md: its configuration, metrics, examples and figures are those that there are."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import edgemoe
from edgemoe.packaged_bundles import find_bundle
from edgemoe.studies.serving import BALANCER
from support.serving import TOKEN, ask, serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BUNDLE = "m3vit-micro-w4a8-pynq-z2"


def test_configuration_of_the_balancer():
    assert f"```\n{BALANCER.read_text(encoding='utf-8')}```\n" in PAGE


def test_metrics(runtime_bundle):
    with serving(runtime_bundle) as url:
        text = ask(url, "GET", "/metrics")[2].decode()
    section = PAGE.partition("## Metrics")[2].partition("\n## ")[0]
    families = {each.name for each in text_string_to_metric_families(text) if not each.name.endswith("_created")}
    assert families == {name.removesuffix("_total") for name in re.findall(r"`(edgemoe_\w+)`", section)}


def test_examples(capsys, monkeypatch):
    """Python's, with another address."""
    pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    bundle, path = edgemoe.Bundle.load(find_bundle(BUNDLE)), find_bundle(BUNDLE)
    triton, remote = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    with serving(bundle) as url:
        exec(triton.replace("localhost:8000", url.removeprefix("http://")), {})
    assert capsys.readouterr().out == "(1, 64, 128)\n"
    monkeypatch.setattr("edgemoe.runtime.accelerator.prepare", lambda *arguments: np.zeros((64, 128, 3), np.uint8))
    with serving(bundle, token=TOKEN, paths=[path]) as url:
        exec(remote.replace("http://board:8000", url).replace('"..."', repr(TOKEN)), {})
    assert capsys.readouterr().out.startswith("[[")


def test_figures():
    """The table is the record that ``edgemoe study serve`` wrote."""
    record = json.loads((ROOT / "docs" / "measurements" / "serve.json").read_text(encoding="utf-8"))
    rows = [
        f"| {row['servers']} | {row['clients']} | {row['requests_per_second']:.1f} | {row['p50_ms']:.0f} | "
        f"{row['p99_ms']:.0f} |\n"
        for row in record["rows"]
    ]
    assert "".join(rows) in PAGE
    machine = record["machine"]
    assert f"{machine['cpu']}, {machine['cores']} cores, load average {machine['load_average']:.1f}" in PAGE.replace(
        "\n", " "
    )
