"""edgemoe serve as Triton's own client sees it."""

import numpy as np
import pytest

import edgemoe
from support.serving import TOKEN, Limits, serving

http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
MODEL = "small"


@pytest.fixture(scope="module")
def client(runtime_bundle):
    with serving(runtime_bundle, token=TOKEN, limits=Limits(most_images=4)) as url:
        plugged = http.InferenceServerClient(url.removeprefix("http://"))
        plugged.register_plugin(Bearer())
        yield plugged
        plugged.close()


class Bearer(http.InferenceServerClientPlugin if hasattr(http, "InferenceServerClientPlugin") else object):
    """Sends the token with every request."""

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {TOKEN}"


def test_state_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1") and not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "edgemoe"
    metadata, config = client.get_model_metadata(MODEL), client.get_model_config(MODEL)
    assert config["max_batch_size"] == 4 and config["input"] == [
        {"name": "image", "data_type": "TYPE_UINT8", "dims": [12, 16, 3]}
    ]
    assert [entry["name"] for entry in config["output"]] == [entry["name"] for entry in metadata["outputs"]]
    for entry, output in zip(config["output"], metadata["outputs"], strict=True):
        assert entry["data_type"] == f"TYPE_{output['datatype']}" and [-1, *entry["dims"]] == output["shape"]
    assert [entry["name"] for entry in client.get_model_repository_index()] == [MODEL]


@pytest.mark.parametrize("input_is_binary", [True, False])
@pytest.mark.parametrize("output_is_binary", [True, False, None])
def test_inference(client, pictures, runtime_bundle, input_is_binary, output_is_binary):
    """Pictures and predictions in JSON and in binary; without named outputs, all of them."""
    given = http.InferInput("image", [3, 12, 16, 3], "UINT8")
    given.set_data_from_numpy(pictures[:3], binary_data=input_is_binary)
    outputs = None
    if output_is_binary is not None:
        names = ("depth", "segmentation", "edges", "normals.raw")
        outputs = [http.InferRequestedOutput(name, binary_data=output_is_binary) for name in names]
    result = client.infer(MODEL, [given], outputs=outputs, request_id="9", timeout=10_000_000)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("9", MODEL, "1")
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        wanted = accelerator.run(list(pictures[:3]), list(accelerator.tasks))
    for name in [entry["name"] for entry in response["outputs"]]:
        task, _, raw = name.partition(".")
        values = np.stack([getattr(each[task], raw or "values") for each in wanted])
        np.testing.assert_array_equal(result.as_numpy(name), values)
    assert len(response["outputs"]) == (4 if outputs else 10)


def test_parameters_and_several_at_once(client, pictures, expected):
    given = []
    for picture in pictures:
        given.append(http.InferInput("image", [1, 12, 16, 3], "UINT8"))
        given[-1].set_data_from_numpy(picture[None])
    futures = [client.async_infer(MODEL, [each], parameters={"tasks": "depth"}) for each in given]
    for picture, future in zip(pictures, futures, strict=True):
        found = future.get_result().as_numpy("depth.raw")
        np.testing.assert_array_equal(found[0], expected(picture, "depth"))


@pytest.mark.parametrize(
    ("name", "shape", "datatype", "output", "message"),
    [
        ("picture", [1, 12, 16, 3], "UINT8", "depth", "this model has no input 'picture'; it has image"),
        ("image", [1, 12, 16, 3], "FP32", "depth", "image must be UINT8, not 'FP32'"),
        (
            "image",
            [1, 16, 12, 3],
            "UINT8",
            "depth",
            r"image must have the shape \[N, 12, 16, 3\], not \[1, 16, 12, 3\]",
        ),
        ("image", [12, 16, 3], "UINT8", "depth", r"image must have the shape \[N, 12, 16, 3\]"),
        ("image", [5, 12, 16, 3], "UINT8", "depth", "a request may have 1 to 4 pictures, not 5"),
        ("image", [1, 12, 16, 3], "UINT8", "smell", "this model has no output 'smell'; it has segmentation, "),
    ],
)
def test_refusals(client, name, shape, datatype, output, message):
    """As the client's own exception, with the server's words."""
    given = http.InferInput(name, shape, datatype)
    given.set_data_from_numpy(np.zeros(shape, np.float32 if datatype == "FP32" else np.uint8))
    with pytest.raises(http.InferenceServerException, match=message) as caught:
        client.infer(MODEL, [given], outputs=[http.InferRequestedOutput(output)])
    assert "400" in caught.value.status()


def test_what_is_not_served_is_refused(client, pictures):
    """Not left out in silence."""
    given = http.InferInput("image", [1, 12, 16, 3], "UINT8")
    given.set_data_from_numpy(pictures[:1])
    for options in ({"sequence_id": 7}, {"priority": 1}, {"parameters": {"task": "depth"}}):
        with pytest.raises(http.InferenceServerException, match="the request can have no parameter '"):
            client.infer(MODEL, [given], **options)
    with pytest.raises(http.InferenceServerException, match="output scene can have no parameter 'classification'"):
        client.infer(MODEL, [given], outputs=[http.InferRequestedOutput("scene", class_count=2)])
    with pytest.raises(http.InferenceServerException, match="this server reads no compressed requests"):
        client.infer(MODEL, [given], request_compression_algorithm="gzip")
