"""Players of the demo that run and are watched, and servers of their page, for tests."""

import http.client
import threading
import time
from contextlib import closing, contextmanager
from functools import partial

import uvicorn
from websockets.sync.client import connect as connect_websocket

import edgemoe
from edgemoe.demo.player import Player
from edgemoe.demo.server import application, configured
from edgemoe.demo.view import about, decode
from edgemoe.web.listening import listen, url_of

SECONDS = 20


def connect(address, **options):
    return connect_websocket(address, max_queue=None, **options)  # else close waits for frames that nobody reads


def endlessly(pictures):
    while True:
        yield from pictures


def newest(player, after=0, seconds=SECONDS):
    """Header and images of a frame after the first ``after`` ones."""
    end = time.monotonic() + seconds
    while player.count <= after:
        assert time.monotonic() < end, f"no frame; {player.state}"
        time.sleep(0.005)
    return decode(player.message)


def stays(value, read):
    """Whether ``read()`` is still ``value`` when frames in flight have had time to arrive."""
    time.sleep(0.3)
    return read() == value


open_reference = partial(edgemoe.open, "reference")


@contextmanager
def playing(bundle, pictures, tasks=("segmentation", "depth"), open_device=open_reference):
    with open_device(bundle, resize="crop") as accelerator, Player(accelerator, pictures, 500, tasks) as player:
        yield player


@contextmanager
def serving(player, host="127.0.0.1"):
    """The page's address while a server runs in a thread."""
    with listen(host, 0) as listening:
        app = application(player, about(player.accelerator, "a test", player.measures_power), host)
        server = uvicorn.Server(configured(app))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


def get(url, path, headers=None):
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=SECONDS)
    with closing(connection):
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
