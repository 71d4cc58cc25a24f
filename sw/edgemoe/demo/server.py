"""The web server: one page, its files, and a WebSocket that sends frames and takes commands."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from edgemoe.demo.player import Player
from edgemoe.web.access import Doorkeeper
from edgemoe.web.connections import BoundedProtocol, backlog
from edgemoe_models.storage.json_text import JsonError, parse_json

__all__ = ["application", "configured", "serve"]

STATIC = Path(__file__).parent / "static"
_FILES = ("app.js", "icon.svg", "style.css")
_LONGEST_COMMAND, _LONGEST_ANSWER = 1 << 20, 300  # bytes, characters
# Everything comes from here: the page works without a network, and nothing of a camera's pictures leaves.
_HEADERS = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"}


def application(player: Player, about: dict[str, Any], host: str = "127.0.0.1") -> Starlette:
    """The page of one player; ``about`` is what a viewer is told first, ``host`` the address that is listened on."""

    async def page(request: Request) -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=_HEADERS)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        return FileResponse(STATIC / name) if name in _FILES else PlainTextResponse("not found\n", 404)

    async def live(viewer: WebSocket) -> None:
        await _Viewer(viewer, player).serve(about)

    return Starlette(
        routes=[Route("/", page), Route("/static/{name}", file), WebSocketRoute("/live", live)],
        middleware=[Middleware(Doorkeeper, host=host, verb="demo")],
    )


class _Viewer:
    """One open page. It gets the newest frame whenever it has taken the one before, so a slow one skips frames."""

    def __init__(self, viewer: WebSocket, player: Player) -> None:
        self._viewer, self._player = viewer, player
        self._news = asyncio.Event()

    async def serve(self, about: dict[str, Any]) -> None:
        """Until the viewer goes, which ends nothing but this."""
        with contextlib.suppress(WebSocketDisconnect):
            await self._viewer.accept()
            with self._player.watched(functools.partial(self._call, asyncio.get_running_loop())):
                both = [asyncio.create_task(work) for work in (self._send(about), self._receive())]
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in both:
                        task.cancel()
                    await asyncio.gather(*both, return_exceptions=True)

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(self._news.set)

    async def _tell(self, message: Mapping[str, Any]) -> None:
        await self._viewer.send_text(json.dumps(message))  # in ASCII: a file's name may have no UTF-8

    async def _send(self, about: dict[str, Any]) -> None:
        await self._tell(about)
        state, count = None, 0
        while True:
            await self._news.wait()
            self._news.clear()
            if (now := self._player.state) != state:
                state = now
                await self._tell({"type": "state", **state})
            if self._player.count != count:
                count = self._player.count
                await self._viewer.send_bytes(self._player.message)

    async def _receive(self) -> None:
        while (message := await self._viewer.receive())["type"] != "websocket.disconnect":
            try:
                self._obey(message.get("text"))
            except ValueError as error:
                await self._tell({"type": "refused", "message": str(error)[:_LONGEST_ANSWER]})

    def _obey(self, text: str | None) -> None:
        """``{"task": NAME, "on": true or false}`` or ``{"paused": true or false}``; ValueError says why not."""
        try:
            command = parse_json(text or "", largest=_LONGEST_COMMAND)
        except JsonError:
            command = None
        match command:
            case {"task": str(task), "on": bool(is_on), **others} if not others:
                self._player.switch(task, is_on)
            case {"paused": bool(is_paused), **others} if not others:
                self._player.pause(is_paused)
            case _:
                raise ValueError("this is no command")


def configured(app: Starlette) -> uvicorn.Config:
    """How the server runs: commands are short, so whoever sends much is sent away, and only that one."""
    return uvicorn.Config(
        app,
        log_level="error",  # a line for every wrong request, as warnings have it, lets anybody fill the disk
        http=BoundedProtocol,
        backlog=backlog(),
        ws="websockets-sansio",
        ws_max_size=_LONGEST_COMMAND,
        lifespan="off",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until the user interrupts it, or the process is asked to end."""
    server = uvicorn.Server(configured(app))
    # uvicorn repeats the signal when it has shut down; both then end here, and what is open is closed.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run([listening])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
