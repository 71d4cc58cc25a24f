"""Servers of edgemoe serve that run in this process, for tests, and raw requests to them."""

import contextlib
import http.client
import json
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import uvicorn

import edgemoe
from edgemoe.runtime.open_inference import HEADER_LENGTH
from edgemoe.runtime.reference import ReferenceExecutor
from edgemoe.serve.application import Limits, Served, Server
from edgemoe.serve.server import configured
from edgemoe.web.listening import listen, url_of

SECONDS = 20
TOKEN = "tests-0123456789abcdef"


@contextmanager
def running(server, host="127.0.0.1", port=0):
    """A server's address while it runs in a thread."""
    with server, listen(host, port) as listening:
        web = uvicorn.Server(configured(server))
        thread = threading.Thread(target=web.run, args=([listening],))
        thread.start()
        try:
            yield url_of(listening).rstrip("/")
        finally:
            web.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


@contextmanager
def serving(*bundles, open_device=edgemoe.open, device="reference", paths=None, port=0, **options):
    """The address of a server of these bundles; ``options`` are ``Server``'s."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_device(device, bundle)) for bundle in bundles]
        served = [Served(each, path) for each, path in zip(opened, paths or [None] * len(opened), strict=True)]
        with running(Server(served, **options), port=port) as url:
            yield url


def ask(url, method, path, body=None, headers=None, seconds=SECONDS):
    """Status, headers by lower-case name, and body of an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=seconds)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def get(url, path, headers=None):
    """Status and JSON of an answer."""
    status, _, content = ask(url, "GET", path, headers=headers)
    return status, json.loads(content)


def infer(url, model, document, binary=b"", headers=None):
    """Status, headers and JSON of an inference; ``document`` is JSON, or already text."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    sent = {HEADER_LENGTH: str(len(text))} if binary else {}
    status, found, content = ask(url, "POST", f"/v2/models/{model}/infer", text + binary, {**sent, **(headers or {})})
    length = int(found.get(HEADER_LENGTH.lower(), len(content)))
    return status, found, json.loads(content[:length])


def json_request(images, **more):
    """A request with its pictures as nested lists."""
    entry = {"name": "image", "datatype": "UINT8", "shape": list(images.shape), "data": images.tolist()}
    return {"inputs": [entry], **more}


def binary_request(images, **more):
    """A request and the bytes behind it."""
    parameters = {"binary_data_size": images.nbytes}
    entry = {"name": "image", "datatype": "UINT8", "shape": list(images.shape), "parameters": parameters}
    return {"inputs": [entry], **more}, images.tobytes()


class Gated(ReferenceExecutor):
    """The reference, which runs nothing while its gate is closed, and fails where it is told to.

    Attributes:
        gate: set: it is open
        began: one for each program that has begun
        failures: exceptions that the next programs raise
    """

    def __init__(self, bundle):
        super().__init__(bundle)
        self.gate, self.began, self.failures = threading.Event(), threading.Semaphore(0), []
        self.programs = []

    def execute(self, program, *arguments, **options):
        self.programs.append(program)
        self.began.release()
        assert self.gate.wait(SECONDS)
        if self.failures:
            raise self.failures.pop(0)
        return super().execute(program, *arguments, **options)


@contextmanager
def gated(bundle, **options):
    """A server on a gated device: the executor and the address. At the end the gate is open."""
    executor = Gated(bundle)
    with edgemoe.Accelerator(executor) as accelerator:
        server = Server([Served(accelerator)], **options)
        try:
            with running(server) as url:
                yield executor, url
        finally:
            executor.gate.set()


__all__ = [
    "SECONDS",
    "TOKEN",
    "Limits",
    "Served",
    "Server",
    "ask",
    "binary_request",
    "gated",
    "get",
    "infer",
    "json_request",
    "running",
    "serving",
]
