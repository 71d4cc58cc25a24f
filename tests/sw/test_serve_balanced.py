"""Two servers behind a stock balancer, one of which goes in the middle: every request is answered, and rightly."""

import os
import time

import numpy as np
import pytest

import edgemoe
from edgemoe.packaged_bundles import find_bundle
from edgemoe.studies.serving import balanced, has_balancer, server, serving_rows
from support.serving import SECONDS, ask

BUNDLE = "m3vit-micro-w4a8-pynq-z2"
REQUESTS, AT_ONCE = 48, 6


@pytest.fixture(autouse=True)
def needs_balancer():
    """Continuous integration sets EDGEMOE_REQUIRE_BALANCER, so that it is not skipped there."""
    if not has_balancer():
        message = "HAProxy is not installed; Debian: sudo apt-get install haproxy"
        assert not os.environ.get("EDGEMOE_REQUIRE_BALANCER"), message
        pytest.skip(message)


def answered(url):
    """How many requests a server has answered, by status."""
    found = {}
    for line in ask(url, "GET", "/metrics")[2].decode().splitlines():
        if line.startswith("edgemoe_requests_total"):
            status = line.partition('code="')[2][:3]
            found[status] = found.get(status, 0) + float(line.split()[-1])
    return found


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_one_server_goes(how):
    """Asked to end, it finishes what it has accepted and the rest goes to the other one; killed, all of it does."""
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    bundle = edgemoe.Bundle.load(find_bundle(BUNDLE))
    shape = (bundle.model.image_height, bundle.model.image_width, 3)
    pictures = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    with edgemoe.open("reference", bundle) as reference:
        wanted = [reference.run(picture, "depth").raw for picture in pictures]
    with server(BUNDLE) as (leaving, one), server(BUNDLE) as (staying, other), balanced([one, other]) as url:
        client = http.InferenceServerClient(url.removeprefix("http://"), concurrency=AT_ONCE, network_timeout=SECONDS)
        end = time.monotonic() + SECONDS
        while not client.is_server_ready():
            assert time.monotonic() < end
            time.sleep(0.05)
        futures = []
        for number in range(REQUESTS):
            given = http.InferInput("image", [1, *shape], "UINT8")
            given.set_data_from_numpy(pictures[number % 4][None])
            output = http.InferRequestedOutput("depth.raw")
            futures.append(client.async_infer(bundle.model.name, [given], outputs=[output]))
        for number, future in enumerate(futures):
            np.testing.assert_array_equal(
                future.get_result(timeout=SECONDS).as_numpy("depth.raw")[0], wanted[number % 4]
            )
            if number == REQUESTS // 4:
                before = answered(one), answered(other)
                getattr(leaving, how)()
        client.close()
        assert before[0]["200"] > 0 and before[1]["200"] > 0, "both had work before"
        after = answered(other)
        assert sum(found["200"] for found in before) < REQUESTS and after["200"] > before[1]["200"]
        assert leaving.wait(SECONDS) == (0 if how == "terminate" else -9) and staying.poll() is None


def test_study(tmp_path):
    """Its rows are of one and of two servers, and consistent."""
    found = serving_rows(find_bundle(BUNDLE), edgemoe.Bundle.load(find_bundle(BUNDLE)), "reference", [2], 0.5)
    assert [(row["servers"], row["clients"]) for row in found["rows"]] == [(1, 2), (2, 2)]
    for row in found["rows"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] and row["requests"] >= row["clients"]
        assert row["requests_per_second"] == pytest.approx(row["clients"] * 1e3 / row["p50_ms"], rel=0.8)
    assert (found["model"], found["device"], found["task"]) == ("m3vit-micro", "reference", "segmentation")
