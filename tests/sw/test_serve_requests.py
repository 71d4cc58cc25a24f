"""Requests that are wrong, by kind and by chance: each gets 400 and one line, and the server goes on."""

import copy
import json
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemoe.runtime.open_inference import HEADER_LENGTH, ProtocolError
from edgemoe.serve.message import read_request
from support.serving import Limits, ask, binary_request, get, infer, json_request, serving

MODEL = "small"
IMAGE = np.zeros((1, 12, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def url(runtime_bundle):
    with serving(runtime_bundle, limits=Limits(most_images=2)) as address:
        yield address


def changed(path, value, binary=False):
    """A good request with one part replaced; ``...`` removes it."""
    document = copy.deepcopy(binary_request(IMAGE)[0] if binary else json_request(IMAGE))
    owner = document
    for key in path[:-1]:
        owner = owner[key] if isinstance(owner, list) else owner.setdefault(key, {})
    if value is ...:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return document


def nested(value):
    """The good data, with this in one place."""
    data = IMAGE.tolist()
    data[0][3][2][1] = value
    return data


DATA, SHAPE, INPUT = ("inputs", 0, "data"), ("inputs", 0, "shape"), ("inputs", 0)
NEITHER = "data of image is neither flat nor nested as its shape"
NUMBERS = "data of image must be integers from 0 to 255"
WRONG = [
    (b"", "it is not JSON"),
    (b"{", "it is not JSON"),
    (b"\xff\xfe", "it is not text in UTF-8"),
    (b"null", "the message must be an object, not null"),
    (b"[]", "the request must be an object"),
    (b"{}", "the request lacks inputs"),
    (b'{"inputs": [], "inputs": []}', "the key 'inputs' comes twice"),
    (b'{"inputs": NaN}', "NaN, which is no finite number"),
    (b'{"inputs": 1e999}', "which is no finite number"),
    (b'{"inputs": ' + b"[" * 50_000, "more than 32 deep"),
    (b'{"inputs": ' + b"9" * 10_000 + b"}", "more than 25 digits"),
    (changed(("input",), 1), "the request has no field 'input'; it has inputs, id, parameters, outputs"),
    (changed(("id",), 7), "id must be a string"),
    (changed(("id",), "x" * 1001), "id must be a string of at most 1000"),
    (changed(("parameters",), []), "parameters of the request must be an object"),
    (changed(("parameters", "task"), "depth"), "the request can have no parameter 'task', only tasks"),
    (changed(("parameters", "tasks"), "smell"), "this model has no task 'smell'; it has segmentation"),
    (changed(("parameters", "tasks"), ""), "this model has no task ''"),
    (changed(("parameters", "tasks"), []), "tasks must be names of tasks"),
    (changed(("parameters", "tasks"), [1]), "tasks must be names of tasks"),
    (changed(("parameters", "timeout"), -1), "timeout .microseconds. must be an integer"),
    (changed(("parameters", "timeout"), True), "timeout .microseconds. must be an integer"),
    (changed(("parameters", "binary_data_output"), 1), "binary_data_output must be true or false"),
    (changed(("parameters", "one_program"), "yes"), "one_program must be true or false"),
    (changed(("parameters", "one_program"), True), "the bundle has no program of tasks segmentation, depth"),
    (changed(("inputs",), {}), "inputs must be a list"),
    (changed(("inputs",), []), "inputs must have 1 items, not 0"),
    (changed(("inputs",), json_request(IMAGE)["inputs"] * 2), "inputs must have 1 items, not 2"),
    (changed(INPUT, 7), "an input must be an object"),
    (changed((*INPUT, "name"), ...), "an input lacks name"),
    (changed((*INPUT, "name"), None), "this model has no input None; it has image"),
    (changed((*INPUT, "colour"), 1), "an input has no field 'colour'"),
    (changed((*INPUT, "datatype"), "INT8"), "image must be UINT8, not 'INT8'"),
    (changed((*INPUT, "datatype"), ["UINT8"]), "image must be UINT8"),
    (changed((*INPUT, "parameters"), {"shared_memory_region": "x"}), "input image can have no parameter 'shared"),
    (changed(SHAPE, ...), "an input lacks shape"),
    (changed(SHAPE, []), "image must have the shape"),
    (changed(SHAPE, "1"), "image must have the shape"),
    (changed(SHAPE, [12, 16, 3]), r"image must have the shape \[N, 12, 16, 3\], not \[12, 16, 3\]"),
    (changed(SHAPE, [1.0, 12, 16, 3]), "image must have the shape"),
    (changed(SHAPE, [True, 12, 16, 3]), "image must have the shape"),
    (changed(SHAPE, [1, 12, 16, 4]), "image must have the shape"),
    (changed(SHAPE, [0, 12, 16, 3]), "1 to 2 pictures, not 0"),
    (changed(SHAPE, [-1, 12, 16, 3]), "1 to 2 pictures, not -1"),
    (changed(SHAPE, [10**18, 12, 16, 3]), "1 to 2 pictures, not 1000000000000000000"),
    (changed(SHAPE, [2, 12, 16, 3]), NEITHER),
    (changed(DATA, ...), "image must have either data or the parameter binary_data_size"),
    (changed(DATA, []), NEITHER),
    (changed(DATA, {}), NEITHER),
    (changed(DATA, "0" * 576), NEITHER),
    (changed(DATA, [0] * 575), NEITHER),
    (changed(DATA, IMAGE[0].tolist()), NEITHER),
    (changed(DATA, nested([0])), NUMBERS),
    (changed(DATA, nested(256)), NUMBERS),
    (changed(DATA, nested(-1)), NUMBERS),
    (changed(DATA, nested(0.5)), NUMBERS),
    (changed(DATA, nested(1.0)), NUMBERS),
    (changed(DATA, nested(True)), NUMBERS),
    (changed(DATA, nested(None)), NUMBERS),
    (changed(DATA, nested("0")), NUMBERS),
    (json.dumps(changed(DATA, nested(math.nan))).encode(), "NaN, which is no finite number"),
    (changed(("outputs",), "depth"), "outputs must be a list"),
    (changed(("outputs",), ["depth"]), "an output must be an object"),
    (changed(("outputs",), [{"name": "smell"}]), "this model has no output 'smell'; it has segmentation"),
    (changed(("outputs",), [{"name": ["depth"]}]), "this model has no output"),
    (changed(("outputs",), [{"name": "depth"}] * 2), "output depth is asked for twice"),
    (changed(("outputs",), [{"name": "depth"}] * 99), "outputs must have 0..10 items"),
    (changed(("outputs",), [{"name": "depth", "data": 1}]), "an output has no field 'data'"),
    (changed(("outputs",), [{"name": "depth", "parameters": {"binary_data": 1}}]), "binary_data must be true or"),
    ({**json_request(IMAGE), "parameters": {"tasks": "edges"}, "outputs": [{"name": "depth"}]}, "of its tasks"),
]


@pytest.mark.parametrize(("document", "message"), WRONG)
def test_wrong_requests(url, document, message):
    status, headers, answer = infer(url, MODEL, document)
    assert status == 400 and headers["content-type"] == "application/json" and list(answer) == ["error"]

    assert re.search(message, answer["error"]) and "\n" not in answer["error"] and len(answer["error"]) < 400


@pytest.mark.parametrize(
    ("length", "document", "binary", "message"),
    [
        ("-1", b"{}", b"", "must be a number of bytes, not '-1'"),
        ("x", b"{}", b"", "must be a number of bytes"),
        ("9" * 30, b"{}", b"", "must be a number of bytes"),
        ("", b"{}", b"", "must be a number of bytes"),
        ("\u00b2", b"{}", b"", "must be a number of bytes"),
        ("3", b"{}", b"", "is 3, but the body has 2 bytes"),
        ("0", b"", b"\x00" * 575, "the body must be 1 to 2 pictures of 576 bytes each, not 575 bytes"),
        ("0", b"", b"", "the body must be 1 to 2 pictures of 576 bytes each, not 0 bytes"),
        ("0", b"", b"\x00" * 576 * 3, "the body must be 1 to 2 pictures of 576 bytes each, not 1728 bytes"),
        (None, binary_request(IMAGE)[0], b"\x00" * 575, "image of this shape has 576 bytes; .* is 576, and 575 bytes"),
        (None, binary_request(IMAGE)[0], b"\x00" * 577, "image of this shape has 576 bytes; .* and 577 bytes"),
        (None, json_request(IMAGE), b"\x00", "1 bytes behind the JSON belong to no input"),
        (None, changed((*INPUT, "parameters"), {"binary_data_size": 575}, True), b"\x00" * 575, "has 576 bytes"),
        (None, changed((*INPUT, "parameters"), {"binary_data_size": "576"}, True), b"\x00" * 576, "is '576'"),
        (None, changed((*INPUT, "data"), [0] * 576, True), b"\x00" * 576, "either data or the parameter"),
    ],
)
def test_wrong_lengths(url, length, document, binary, message):

    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {HEADER_LENGTH: str(len(text)) if length is None else length.encode("latin-1")}
    status, _, content = ask(url, "POST", f"/v2/models/{MODEL}/infer", text + binary, headers)
    assert status == 400 and re.search(message, json.loads(content)["error"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
paths = st.sampled_from(
    [
        ("id",),
        ("inputs",),
        INPUT,
        *((*INPUT, key) for key in ("name", "datatype", "shape", "data", "parameters", "more")),
        (*SHAPE, 0),
        (*SHAPE, 3),
        (*DATA, 0),
        (*DATA, 0, 1),
        ("outputs",),
        ("parameters",),
        *(("parameters", key) for key in ("tasks", "timeout", "binary_data_output", "one_program", "more")),
    ]
)


def read(bundle, body, length=None):
    """A request, or None where it is refused in one line of a bounded length; anything else is a fault."""
    try:
        return read_request(bundle, body, length, 2)
    except ProtocolError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 1000
        return None


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=paths, value=json_values, is_binary=st.booleans())
def test_any_value_in_any_place(runtime_bundle, path, value, is_binary):
    if is_binary and path[:3] == DATA and len(path) > 3:
        path = DATA
    document = json.dumps(changed(path, value, is_binary)).encode()
    pixels = IMAGE.tobytes() if is_binary else b""
    found = read(runtime_bundle, document + pixels, str(len(document)) if is_binary else None)
    if found is not None:  # then it is a good one
        assert found.images.dtype == np.uint8 and found.images.shape == (1, 12, 16, 3) and found.outputs
        assert set(found.tasks) <= set(runtime_bundle.tasks) and isinstance(found.id, (str, type(None)))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=700), length=st.none() | st.integers(-2, 800).map(str) | st.text(max_size=6))
def test_any_bytes(runtime_bundle, body, length):
    found = read(runtime_bundle, body, length)
    assert found is None or (length is not None and len(body) == 576)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_requests_at_the_server(url, data):
    """Bytes of a good request replaced, removed or repeated, over the network: 200 or 400, and it goes on."""
    document, pixels = binary_request(IMAGE, outputs=[{"name": "edges"}])
    text = json.dumps(document).encode()
    body = bytearray(text + pixels)
    for _ in range(data.draw(st.integers(1, 4))):
        place, kind = data.draw(st.integers(0, len(text) - 1)), data.draw(st.sampled_from("rdi"))
        if kind == "r":
            body[place] = data.draw(st.integers(0, 255))
        elif kind == "d":
            del body[place]
        else:
            body[place:place] = data.draw(st.binary(min_size=1, max_size=8))
    length = data.draw(st.sampled_from([len(text), len(body) - 576]))
    status, _, content = ask(url, "POST", f"/v2/models/{MODEL}/infer", bytes(body), {HEADER_LENGTH: str(length)})
    assert status in (200, 400) and (status == 200 or list(json.loads(content)) == ["error"])
    assert get(url, "/v2/health/ready")[0] == 200
