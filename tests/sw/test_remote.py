"""The device ``remote``: what it fetches, sends and refuses. test_runtime_contract.py has what all devices promise."""

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import edgemoe
from edgemoe import BundleError, DeviceError, DeviceTimeout
from edgemoe.bundle import Bundle, Joined
from support.command_line import CommandLine
from support.serving import SECONDS, TOKEN, Limits, ask, gated, serving


@pytest.fixture
def bundle_file(runtime_bundle, tmp_path):
    runtime_bundle.save(tmp_path / "x.emoe")
    return tmp_path / "x.emoe"


def test_without_a_bundle(runtime_bundle, bundle_file, pictures, expected):
    """It is fetched from the server, and is the server's."""
    with serving(runtime_bundle, token=TOKEN, paths=[bundle_file]) as url:
        with edgemoe.open("remote", url=url + "/", token=TOKEN) as accelerator:
            assert accelerator.bundle.sha256 == runtime_bundle.sha256 and accelerator.device == "remote"
            np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))
        for spoil in (lambda: bundle_file.write_bytes(bundle_file.read_bytes()[:-9]), bundle_file.unlink):
            spoil()  # what lies there now is not what is served, and may be anything
            with pytest.raises(DeviceError, match="this server has not the bundle's file any more; give it to"):
                edgemoe.open("remote", url=url, token=TOKEN)


def test_a_file_that_is_put_in_the_bundle_s_place_is_not_sent(runtime_bundle, bundle_file):
    with serving(runtime_bundle, paths=[bundle_file]) as url:
        other = bundle_file.with_name("other")
        other.write_bytes(b"secret")
        other.replace(bundle_file)
        status, _, content = ask(url, "GET", "/v2/models/small/bundle")
        assert status == 404 and b"secret" not in content


def test_verbs(compiled, image, tmp_path, monkeypatch, capsys):
    """Every verb with --device has it, by the environment."""
    edgemoe_verb = CommandLine(capsys)
    with serving(Bundle.load(compiled), token=TOKEN) as url:
        monkeypatch.setenv("EDGEMOE_URL", url)
        monkeypatch.setenv("EDGEMOE_TOKEN", TOKEN)
        assert "self-test passed" in edgemoe_verb.ok("selftest", "--bundle", compiled, "--device", "remote")
        for device in ("remote", "reference"):
            edgemoe_verb.ok("run", compiled, image, "--device", device, "--out", tmp_path / device)
        names = sorted(path.name for path in (tmp_path / "reference").glob("*.npy"))
        assert len(names) == 3
        for name in names:
            assert (tmp_path / "remote" / name).read_bytes() == (tmp_path / "reference" / name).read_bytes()


def test_several_models_and_versions(runtime_bundle, joint_bundle, bundle_file, pictures):
    """A bundle that is given is found by its content, one that is not by its name."""
    joint_file = bundle_file.with_name("joint.emoe")
    joint_bundle.save(joint_file)
    with serving(runtime_bundle, joint_bundle, paths=[bundle_file, joint_file]) as url:
        for given in (runtime_bundle, joint_bundle):
            with edgemoe.open("remote", given, url=url) as accelerator:
                assert accelerator.run(pictures[0], ["depth", "segmentation"])["depth"].stats.shared == (
                    2 if given is joint_bundle else 1
                )
        for name, wanted in ((None, joint_bundle), ("small", joint_bundle), ("small/1", runtime_bundle)):
            with edgemoe.open("remote", url=url, model=name) as accelerator:
                assert accelerator.bundle.sha256 == wanted.sha256
        with pytest.raises(ValueError, match="serves no model 'small/3'; it has small/1, small/2"):
            edgemoe.open("remote", url=url, model="small/3")
    with serving(runtime_bundle) as url, pytest.raises(BundleError, match="does not serve this bundle of small .*; it"):
        edgemoe.open("remote", joint_bundle, url=url)


def test_joint_programs(joint_bundle, pictures):
    """As one request each; the stats are the program's, as on every device."""
    with serving(joint_bundle) as url, edgemoe.open("remote", joint_bundle, url=url) as accelerator:
        with edgemoe.open("reference", joint_bundle) as reference:
            wanted = reference.run(list(pictures[:4]), "depth")
        found = accelerator.run(list(pictures[:4]), "depth")
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.raw, other.raw)
            assert one.stats.expert_loads == other.stats.expert_loads and one.stats.shared == other.stats.shared == 4
        program = Joined(("depth",), 2)
        assert accelerator.run_program(program, pictures[:2])[1]["depth"].stats.images == 2


def test_cycles_and_clock(runtime_bundle, pictures):
    with serving(runtime_bundle, device="sim") as url, edgemoe.open("remote", runtime_bundle, url=url) as accelerator:
        stats = accelerator.run(pictures[0], "depth").stats
        assert stats.cycles > 1000 and accelerator.clock_mhz == runtime_bundle.config.assumed_clock_mhz
        assert stats.device_seconds == pytest.approx(stats.cycles / accelerator.clock_mhz / 1e6, rel=0.1)


def test_a_busy_server_is_asked_again(runtime_bundle, pictures, expected):
    with gated(runtime_bundle, limits=Limits(queue=1)) as (device, url), ThreadPoolExecutor() as pool:
        with contextlib.ExitStack() as stack:
            several = [stack.enter_context(edgemoe.open("remote", runtime_bundle, url=url)) for _ in range(4)]
            futures = [
                pool.submit(each.run, picture, "depth") for each, picture in zip(several, pictures, strict=False)
            ]
            assert device.began.acquire(timeout=SECONDS)
            device.gate.set()
            for future, picture in zip(futures, pictures, strict=False):
                np.testing.assert_array_equal(future.result(SECONDS).raw, expected(picture, "depth"))


def test_time_is_limited(runtime_bundle, pictures):
    """By the client, with a busy server too, and by the server."""
    with gated(runtime_bundle, limits=Limits(queue=1, timeout=3)) as (device, url), ThreadPoolExecutor() as pool:
        with (
            edgemoe.open("remote", runtime_bundle, url=url, request_timeout=0.3) as hasty,
            edgemoe.open("remote", runtime_bundle, url=url) as patient,
            edgemoe.open("remote", runtime_bundle, url=url) as other,
        ):
            with pytest.raises(DeviceTimeout, match="did not answer within 0.3 s"):
                hasty.run(pictures[0], "depth")
            late = pool.submit(patient.run, pictures[0], "depth")
            time.sleep(0.2)  # it waits; the hasty one's still runs
            with pytest.raises(DeviceTimeout, match="stayed busy for 0.3 s: .*1 requests wait for small already"):
                hasty.run(pictures[0], "depth")
            with pytest.raises(DeviceTimeout, match="was not finished within 3 s"):
                late.result(SECONDS)
            device.gate.set()
            assert other.run(pictures[0], "depth").task == hasty.run(pictures[0], "depth").task == "depth"


def test_failures_come_through(runtime_bundle, pictures):
    with gated(runtime_bundle) as (device, url), edgemoe.open("remote", runtime_bundle, url=url) as accelerator:
        device.gate.set()
        device.failures.append(DeviceError("no power"))
        with pytest.raises(DeviceError, match="device remote: http://.* says: the request failed: no power"):
            accelerator.run(pictures[0], "depth")
        assert accelerator.run(pictures[0], "depth").task == "depth"


def test_a_closed_stream_gives_its_request_up(runtime_bundle, pictures):
    with gated(runtime_bundle) as (device, url), edgemoe.open("remote", runtime_bundle, url=url) as accelerator:
        stream = accelerator.stream(pictures, "depth")
        assert device.began.acquire(timeout=SECONDS)
        begin = time.perf_counter()
        stream.close()
        assert time.perf_counter() - begin < 2
        device.gate.set()


def test_a_server_that_comes_back(runtime_bundle, pictures):
    """A kept connection that has ended meanwhile is made anew; while there is no server, that is said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(runtime_bundle, port=port) as url:
        accelerator = edgemoe.open("remote", runtime_bundle, url=url)
        accelerator.run(pictures[0], "depth")
    with pytest.raises(DeviceError, match=f"device remote: {url} cannot be reached"):
        accelerator.run(pictures[0], "depth")
    with serving(runtime_bundle, port=port), accelerator:
        assert accelerator.run(pictures[0], "depth").task == "depth"


def test_token_and_options(runtime_bundle, monkeypatch):
    monkeypatch.delenv("EDGEMOE_URL", raising=False)
    with serving(runtime_bundle, token=TOKEN) as url:
        for token in (None, TOKEN[:-1]):
            with pytest.raises(DeviceError, match="wants a token.*; open it with token=..., or set EDGEMOE_TOKEN"):
                edgemoe.open("remote", runtime_bundle, url=url, token=token)
        with pytest.raises(ValueError, match="the token has letters that no header can have"):
            edgemoe.open("remote", runtime_bundle, url=url, token="x\r\nHost: y")
        with pytest.raises(ValueError, match="request_timeout must be above 0, not 0"):
            edgemoe.open("remote", runtime_bundle, url=url, token=TOKEN, request_timeout=0)
    with pytest.raises(ValueError, match="device remote needs url='http://HOST:PORT' of an edgemoe serve"):
        edgemoe.open("remote", runtime_bundle)
    with pytest.raises(ValueError, match="device sim needs a bundle: an .emoe file, or the name of a packaged one"):
        edgemoe.open("sim")
    for wrong in (
        "board",
        "ftp://board",
        "http://",
        "http://a b",
        "http://b:x",
        "http://b:99999",
        "http://u:p@b",
        "http://b?x",
    ):
        with pytest.raises(ValueError, match="url "):
            edgemoe.open("remote", runtime_bundle, url=wrong)
    with pytest.raises(DeviceError, match="http://nothing.invalid cannot be reached"):
        edgemoe.open("remote", runtime_bundle, url="http://nothing.invalid")


# Servers that are none, or lie


@contextlib.contextmanager
def liar(answers):
    """A server that answers by path: bytes, or a function of the request's body, with headers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = answers.get(self.path, answers.get("*"))
            content, headers = found(body) if callable(found) else (found, {})
            self.send_response(200)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "is no edgemoe serve .it is not JSON"),
        (b"", "is no edgemoe serve .it is not JSON"),
        (b"{}", "serves nothing of edgemoe .the index must be a list"),
        (b"[]", "serves nothing of edgemoe .the index must have 1..1000 items"),
        (b"[1]", "serves nothing of edgemoe .a model must be an object"),
        (
            b'[{"name": "x", "version": "../.."}]',
            "serves nothing of edgemoe .the model 'x', '../..' has no proper name",
        ),
        (b'[{"name": "x", "version": "1"}]', "serves nothing of edgemoe .metadata must be an object"),
        (b" " * (2 << 20), "is no server of edgemoe .its answer has more than 1,048,576 bytes"),
    ],
)
def test_other_servers(runtime_bundle, content, message):
    with liar({"*": content}) as url, pytest.raises(DeviceError, match=f"^device remote: {url} {message}"):
        edgemoe.open("remote", runtime_bundle, url=url)


def good_answers(bundle):
    about = {"parameters": {"sha256": bundle.sha256, "clock_mhz": 100.0}}
    return {
        "/v2/repository/index": b'[{"name": "small", "version": "1"}]',
        "/v2/models/small/versions/1": json.dumps(about).encode(),
    }


OUTPUT = {"name": "depth.raw", "datatype": "INT16", "shape": [1, 12, 16], "parameters": {"binary_data_size": 384}}
GOOD = {"outputs": [OUTPUT], "parameters": {"device_seconds": 1.0}}


@pytest.mark.parametrize(
    ("document", "size", "message"),
    [
        (GOOD, 384, None),
        (GOOD, 383, "output depth.raw is not whole"),
        (GOOD, 385, "it has 1 bytes too many"),
        ([], 384, "the answer must be an object"),
        ({**GOOD, "outputs": []}, 384, "outputs must have 1 items, not 0"),
        (
            {**GOOD, "outputs": [{**OUTPUT, "shape": [1, 16, 12]}]},
            384,
            r"output depth.raw must have the shape \[1, 12, 16\]",
        ),
        ({**GOOD, "outputs": [{**OUTPUT, "datatype": "FP32"}]}, 384, "output depth.raw must have the datatype INT16"),
        ({**GOOD, "outputs": [{**OUTPUT, "parameters": {"binary_data_size": 1 << 40}}]}, 384, "binary_data_size must"),
        ({**GOOD, "parameters": {}}, 384, "device_seconds must be a finite number"),
        ({**GOOD, "parameters": {"device_seconds": -1}}, 384, "device_seconds must be a finite number"),
        ({**GOOD, "parameters": {"device_seconds": 1, "cycles": "x"}}, 384, "cycles must be an integer"),
        ({**GOOD, "parameters": {"device_seconds": 1, "expert_loads": "["}}, 384, "expert_loads: it is not JSON"),
        ({**GOOD, "parameters": {"device_seconds": 1, "expert_loads": '{"x": []}'}}, 384, "expert_loads has the block"),
        ({**GOOD, "parameters": {"device_seconds": 1, "expert_loads": '{"1": [-1]}'}}, 384, "tokens of an expert must"),
    ],
)
def test_answers_that_cannot_be(runtime_bundle, pictures, document, size, message):
    """What a server says is held against what it must be, before it is used."""
    text = json.dumps(document).encode()
    infer = lambda body: (text + bytes(size), {"Inference-Header-Content-Length": str(len(text))})  # noqa: E731
    answers = {**good_answers(runtime_bundle), "/v2/models/small/versions/1/infer": infer}
    with liar(answers) as url, edgemoe.open("remote", runtime_bundle, url=url) as accelerator:
        if message is None:
            assert not accelerator.run(pictures[0], "depth").raw.any()
            return
        with pytest.raises(DeviceError, match=f"{url} gave no proper answer: {message}"):
            accelerator.run(pictures[0], "depth")


def test_needs_nothing_but_numpy():
    """A board or a small client opens a served bundle with the core alone."""
    code = """
import sys
for name in ("starlette", "uvicorn", "prometheus_client", "tritonclient", "requests", "typer", "rich", "PIL"):
    sys.modules[name] = None
import edgemoe.runtime.remote
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
