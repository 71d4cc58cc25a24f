"""edgemoe serve: the Open Inference Protocol by raw HTTP, access, and metrics."""

import json
import re
import socket
from urllib.parse import urlsplit

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import edgemoe
from edgemoe.runtime.open_inference import HEADER_LENGTH, output_infos
from edgemoe.version import __version__
from support.serving import SECONDS, TOKEN, Limits, ask, binary_request, get, infer, json_request, serving

from .conftest import DEVICES, needs_pynq

MODEL = "small"


@pytest.fixture(scope="module")
def url(runtime_bundle):
    with serving(runtime_bundle) as address:
        yield address


@pytest.fixture
def predictions(runtime_bundle, pictures):
    """Of the first two pictures, by task."""
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        return accelerator.run(list(pictures[:2]), list(accelerator.tasks))


def tensors(document, binary=b""):
    """The outputs of a response, by name, with the datatypes that it says."""
    kinds = {"UINT8": "u1", "INT16": "<i2", "FP32": "<f4", "BOOL": "?"}
    found = {}
    for entry in document["outputs"]:
        kind, size = np.dtype(kinds[entry["datatype"]]), entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(entry["data"], kind)
        else:
            values, binary = np.frombuffer(binary[:size], kind), binary[size:]
        found[entry["name"]] = values.reshape(entry["shape"])
    assert binary == b""
    return found


def equal(found, predictions):
    """Every task's both outputs are the runtime's."""
    for task in predictions[0]:
        for name, attribute in ((task, "values"), (f"{task}.raw", "raw")):
            wanted = np.stack([getattr(each[task], attribute) for each in predictions])
            assert found[name].dtype == wanted.dtype
            np.testing.assert_array_equal(found[name], wanted)


def test_health_and_metadata(url, runtime_bundle):
    assert get(url, "/v2/health/live") == (200, {"live": True})
    assert get(url, "/v2/health/ready") == (200, {"ready": True})
    assert get(url, f"/v2/models/{MODEL}/ready") == (200, {"ready": True})
    status, about = get(url, "/v2")
    assert (status, about["name"], about["version"]) == (200, "edgemoe", __version__)
    assert {"binary_tensor_data", "model_configuration"} <= set(about["extensions"])
    status, model = get(url, f"/v2/models/{MODEL}")
    assert status == 200 and model == get(url, f"/v2/models/{MODEL}/versions/1")[1]
    assert (model["name"], model["versions"], model["platform"]) == (MODEL, ["1"], "edgemoe")
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 12, 16, 3]}]
    assert [entry["name"] for entry in model["outputs"]][:3] == ["segmentation", "segmentation.raw", "depth"]
    assert model["outputs"][2:4] == [
        {"name": "depth", "datatype": "FP32", "shape": [-1, 12, 16]},
        {"name": "depth.raw", "datatype": "INT16", "shape": [-1, 12, 16]},
    ]
    assert model["parameters"]["sha256"] == runtime_bundle.sha256 and model["parameters"]["device"] == "reference"
    assert ask(url, "HEAD", "/v2/health/ready")[0] == 200


@pytest.mark.parametrize("form", ["nested", "flat", "binary", "bare"])
def test_every_output_of_two_pictures(url, pictures, predictions, form):
    images, path = pictures[:2], f"/v2/models/{MODEL}/infer"
    document, pixels = binary_request(images, id="7", parameters={"binary_data_output": True})
    if form in ("nested", "flat"):
        document, pixels = json_request(images, id="7"), b""
    if form == "flat":
        document["inputs"][0]["data"] = images.reshape(-1).tolist()
    text = b"" if form == "bare" else json.dumps(document).encode()
    headers = {} if form in ("nested", "flat") else {HEADER_LENGTH: str(len(text))}
    status, found, content = ask(url, "POST", path, text + pixels, headers)
    assert status == 200
    length = int(found.get(HEADER_LENGTH.lower(), len(content)))
    assert (length < len(content)) == (form in ("binary", "bare"))
    answer = json.loads(content[:length])
    assert (answer["model_name"], answer["model_version"]) == (MODEL, "1")
    assert answer.get("id") == (None if form == "bare" else "7")
    assert answer["parameters"]["device_seconds"] > 0 and answer["parameters"]["attempts"] == 1
    equal(tensors(answer, content[length:]), predictions)


def test_metadata_have_the_shapes_and_types_of_the_outputs(runtime_bundle, predictions):
    for info in output_infos(runtime_bundle.model):
        prediction = predictions[0][info.task]
        values = prediction.values if info.name == info.task else prediction.raw
        assert (values.dtype, values.shape) == (info.dtype, info.shape), info


def test_chosen_outputs_and_tasks(url, pictures, predictions):
    """In the order in which they are asked for, each in its form; ``scale`` turns raw ones into the model's units."""
    outputs = [{"name": "scene.raw"}, {"name": "depth", "parameters": {"binary_data": False}}]
    document, pixels = binary_request(pictures[:2], outputs=outputs)
    status, _, answer = infer(url, MODEL, document, pixels)
    assert status == 200 and [entry["name"] for entry in answer["outputs"]] == ["scene.raw", "depth"]
    np.testing.assert_array_equal(tensors(answer)["depth"], [each["depth"].metres for each in predictions])
    raw = answer["outputs"][0]
    scene = predictions[0]["scene"]
    assert raw["parameters"]["scale"] == scene.scale
    np.testing.assert_allclose(
        np.array(raw["data"][: scene.raw.size]) * raw["parameters"]["scale"], scene.decoded, 1e-6
    )
    for tasks in ("depth, edges", ["depth", "edges"]):
        status, _, answer = infer(url, MODEL, json_request(pictures[:1], parameters={"tasks": tasks}))
        assert [entry["name"] for entry in answer["outputs"]] == ["depth", "depth.raw", "edges", "edges.raw"]


def test_one_program(joint_bundle, pictures):
    """A joint program that is asked for is run, or the request refused; without it the bundle's best are."""
    with serving(joint_bundle) as address:
        document = json_request(pictures[:3], parameters={"tasks": "depth", "one_program": True})
        status, _, answer = infer(address, MODEL, document)
        assert status == 200 and len(json.loads(answer["parameters"]["expert_loads"])["1"]) == 5
        document = json_request(pictures[:5], parameters={"tasks": "depth", "one_program": True})
        assert infer(address, MODEL, document)[2]["error"] == "the bundle has no program of task depth of 5 images"
        assert infer(address, MODEL, json_request(pictures[:5], parameters={"tasks": "depth"}))[0] == 200


def test_versions(runtime_bundle, joint_bundle, pictures):
    """Of one model, in the order in which they are given; the last is meant by default."""
    with serving(runtime_bundle, joint_bundle) as address:
        assert get(address, f"/v2/models/{MODEL}")[1]["parameters"]["sha256"] == joint_bundle.sha256
        assert get(address, f"/v2/models/{MODEL}")[1]["versions"] == ["1", "2"]
        assert get(address, f"/v2/models/{MODEL}/versions/1")[1]["parameters"]["sha256"] == runtime_bundle.sha256
        status, _, content = ask(address, "POST", "/v2/repository/index", b"{}")
        assert status == 200 and [
            (entry["name"], entry["version"], entry["state"]) for entry in json.loads(content)
        ] == [
            (MODEL, "1", "READY"),
            (MODEL, "2", "READY"),
        ]
        path = f"/v2/models/{MODEL}/versions/1/infer"
        text = json.dumps(json_request(pictures[:1], outputs=[{"name": "edges"}]))
        assert json.loads(ask(address, "POST", path, text)[2])["model_version"] == "1"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", f"/v2/models/{MODEL}/versions/2", 404),
        ("GET", f"/v2/models/{MODEL}/versions/x/ready", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("GET", f"/v2/models/{MODEL}/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", f"/v2/models/{MODEL}/bundle", 404),
        ("GET", "/v2/../../etc/passwd", 404),
        ("DELETE", f"/v2/models/{MODEL}", 405),
    ],
)
def test_wrong_paths(url, method, path, status):
    found, headers, content = ask(url, method, path)
    assert found == status and headers["content-type"] == "application/json" and json.loads(content)["error"]


# Access


def test_token(runtime_bundle, pictures):
    """Everything but the health wants it; a server on all addresses may then be called by any name."""
    with serving(runtime_bundle, token=TOKEN) as address:
        good = {"Authorization": f"Bearer {TOKEN}", "Host": "balancer.example"}
        assert get(address, "/v2/health/live")[0] == get(address, "/v2/health/ready")[0] == 200
        for path in ("/v2", "/metrics", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/bundle", "/nothing"):
            for wrong in (None, "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "é"):
                headers = {} if wrong is None else {"Authorization": wrong.encode("latin-1")}
                status, found, content = ask(address, "GET", path, headers=headers)
                assert status == 401 and found["www-authenticate"] == "Bearer"
                assert "Authorization: Bearer TOKEN" in json.loads(content)["error"]
        assert infer(address, MODEL, json_request(pictures[:1]))[0] == 401
        for scheme in ("Bearer", "bearer"):
            assert get(address, "/v2", {**good, "Authorization": f"{scheme} {TOKEN}"})[0] == 200
        assert infer(address, MODEL, json_request(pictures[:1]), headers=good)[0] == 200
        lines = [f"Authorization: Bearer {TOKEN}"] * 2
        assert raw(address, "GET /v2 HTTP/1.1", "Host: x", *lines)[0] == 401


def test_strange_pages_without_a_token(url):
    """A page elsewhere can make a browser ask this machine, but not without telling so."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        status, answer = get(url, "/v2/health/live", headers)
        assert status == 403 and answer["error"]


def raw(url, *lines, body=b""):
    """Status and text of the answer to lines of bytes, whatever they are."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), SECONDS) as line:
        line.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    return int(answer.split()[1]), answer.decode("latin-1")


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (["GARBAGE"], b""),
        (["POST /v2/models/small/infer HTTP/1.1", "Host: localhost", "Content-Length: -1"], b""),
        (["POST /v2/models/small/infer HTTP/1.1", "Host: localhost", "Content-Length: 99999999999999999999"], b""),
        (["POST /v2/models/small/infer HTTP/1.1", "Host: localhost", "Content-Length: x"], b""),
        (["POST /v2/models/small/infer HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked"], b"zz\r\n"),
        (["POST /v2/models/small/infer HTTP/1.1", "Host: localhost", "Content-Encoding: gzip"], b""),
        (["POST /v2/models/small/infer HTTP/1.1", "Host: localhost"], b""),
    ],
)
def test_wrong_http(url, lines, body):
    assert raw(url, *lines, body=body)[0] == 400
    assert get(url, "/v2/health/ready")[0] == 200


def test_large_bodies(url):
    """Neither what is announced nor what comes in chunks is read further than a request may be long."""
    begin = ["POST /v2/models/small/infer HTTP/1.1", "Host: localhost"]
    status, text = raw(url, *begin, "Content-Length: 100000000")
    assert status == 400 and '{"error":"a request may have' in text
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    status, text = raw(url, *begin, "Transfer-Encoding: chunked", body=chunk * 8 + b"0\r\n\r\n")
    assert status == 400 and "a request may have" in text


# Metrics


def families(url):
    """Samples of the metrics by name and labels, as Prometheus' own parser reads them."""
    status, headers, content = ask(url, "GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(content.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = (f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[(sample.name, *labels)] = sample.value
    return found


def test_metrics(runtime_bundle, pictures):
    of = ("model=small", "version=1")
    with serving(runtime_bundle, limits=Limits(queue=5)) as address:
        before = families(address)
        assert before[("edgemoe_queue_depth", *of)] == 0 and before[("edgemoe_queue_limit", *of)] == 5
        assert before[("edgemoe_ready",)] == 1 and before[("edgemoe_failures_total", *of)] == 0
        assert before["edgemoe_inferences_total", "model=small", "task=depth", "version=1"] == 0
        assert infer(address, MODEL, json_request(pictures[:3], outputs=[{"name": "depth"}]))[0] == 200
        assert infer(address, MODEL, b"{")[0] == 400
        assert infer(address, "none", b"{")[0] == 404
        after = families(address)
        assert (
            after[("edgemoe_requests_total", "code=200", *of)]
            == after[("edgemoe_requests_total", "code=400", *of)]
            == 1
        )
        assert after["edgemoe_inferences_total", "model=small", "task=depth", "version=1"] == 3
        assert after["edgemoe_inferences_total", "model=small", "task=edges", "version=1"] == 0
        assert after[("edgemoe_device_seconds_total", *of)] > 0 and after[("edgemoe_device_cycles_total", *of)] == 0
        assert (
            after[("edgemoe_request_seconds_count", *of)]
            == 1
            == after[("edgemoe_request_seconds_bucket", "le=+Inf", *of)]
        )
        assert any(
            re.fullmatch("sha256=[0-9a-f]{64}", part) for key in after if key[0] == "edgemoe_info" for part in key
        )
        assert not [key for key in after if "none" in str(key)]


@pytest.mark.parametrize("device", ["sim", pytest.param("pynq", marks=needs_pynq)])
def test_cycles_of_an_accelerator(runtime_bundle, pictures, device):
    """The RTL's own counter, in the response and in the metrics; of PYNQ on a simulated board."""
    with serving(runtime_bundle, open_device=lambda name, bundle: DEVICES[name](bundle), device=device) as address:
        status, _, answer = infer(address, MODEL, json_request(pictures[:1], outputs=[{"name": "depth"}]))
        cycles = answer["parameters"]["cycles"]
        assert status == 200 and 1000 < cycles < 1_000_000
        assert families(address)["edgemoe_device_cycles_total", "model=small", "version=1"] == cycles
