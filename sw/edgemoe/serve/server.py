"""Runs a server until it is asked to end, and then until what it has accepted is finished."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from edgemoe.serve.application import Server
from edgemoe.web.connections import BoundedProtocol, backlog

__all__ = ["configured", "serve"]

_KEEP_ALIVE = 75  # seconds: longer than a balancer keeps idle connections
_POLL = 0.05
_MARGIN = 5.0  # seconds that a response may take to be sent


def configured(server: Server) -> uvicorn.Config:
    """How the web server runs: HTTP alone, by the parser that is always there."""
    return uvicorn.Config(
        server.app,
        log_level="error",  # a line for every wrong request, as warnings have it, lets anybody fill the disk
        access_log=False,
        http=BoundedProtocol,
        backlog=backlog(),
        ws="none",
        lifespan="off",
        timeout_keep_alive=_KEEP_ALIVE,
        server_header=False,
    )


def serve(
    server: Server,
    listening: socket.socket,
    grace: float = 0.0,
    timeout: float = 30.0,
    began: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then finish what was accepted. A second signal ends it at once.

    Args:
        server: what is served
        listening: where
        grace: seconds for which it says that it is not ready, before it listens no more: so that a balancer that only
            asks for its health now and then sends nothing that would be refused
        timeout: seconds that a request may take
        began: called when a signal would end it well, which is before the first request is answered
    """
    config = configured(server)
    config.timeout_graceful_shutdown = int(timeout + _MARGIN)
    web = uvicorn.Server(config)

    def finish() -> None:
        end = time.monotonic() + grace
        while time.monotonic() < end or server.open_requests:
            time.sleep(_POLL)
        web.should_exit = True

    def asked(number: int, frame: FrameType | None) -> None:
        if web.should_exit or server.is_draining:
            web.should_exit = web.force_exit = True
            return
        server.drain()
        threading.Thread(target=finish, name="serve finish", daemon=True).start()

    web.handle_exit = asked  # uvicorn's own would close the connections of those who ask whether this is ready
    previous = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        began()
        web.run([listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
