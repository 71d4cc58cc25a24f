"""The web server: one page, its files, and a WebSocket that sends frames and takes commands."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from edgemoe.bundle import BundleError
from edgemoe.demo.player import Player

__all__ = ["application", "listen", "serve", "url_of"]

STATIC = Path(__file__).parent / "static"
# Everything comes from here: the page works without a network, and nothing of a camera's pictures leaves.
_HEADERS = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"}


def application(player: Player, about: dict[str, Any], host: str = "127.0.0.1") -> Starlette:
    """The page of one player; ``about`` is what a viewer is told first, ``host`` the address that is listened on."""

    async def page(request: Request) -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=_HEADERS)

    async def live(viewer: WebSocket) -> None:
        await _Viewer(viewer, player).serve(about)

    return Starlette(
        routes=[Route("/", page), WebSocketRoute("/live", live), Mount("/static", StaticFiles(directory=STATIC))],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_names_of(host))],
    )


def _names_of(host: str) -> list[str]:
    """What a browser may call this server: a stranger's name that leads to this machine is a trick (DNS rebinding)."""
    local = ["127.0.0.1", "localhost"]
    return local if host in local else ["*"]


class _Viewer:
    """One open page. It gets the newest frame whenever it has taken the one before, so a slow one skips frames."""

    def __init__(self, viewer: WebSocket, player: Player) -> None:
        self._viewer, self._player = viewer, player
        self._news = asyncio.Event()

    async def serve(self, about: dict[str, Any]) -> None:
        if not self._is_own_page():
            await self._viewer.close()
            return
        await self._viewer.accept()
        loop = asyncio.get_running_loop()
        with self._player.watched(lambda: loop.call_soon_threadsafe(self._news.set)):
            both = [asyncio.create_task(work) for work in (self._send(about), self._receive())]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)

    def _is_own_page(self) -> bool:
        """Browsers let any web page open a WebSocket to this machine, but they say which page it was."""
        origin = self._viewer.headers.get("origin")
        return origin is None or urlsplit(origin).netloc == self._viewer.headers.get("host")

    async def _send(self, about: dict[str, Any]) -> None:
        await self._viewer.send_json(about)
        state, count = None, 0
        while True:
            await self._news.wait()
            self._news.clear()
            if (now := self._player.state) != state:
                state = now
                await self._viewer.send_json({"type": "state", **state})
            if self._player.count != count:
                count = self._player.count
                await self._viewer.send_bytes(self._player.message)

    async def _receive(self) -> None:
        while True:
            try:
                command = json.loads(await self._viewer.receive_text())
                if "task" in command:
                    self._player.switch(str(command["task"]), bool(command["on"]))
                if "paused" in command:
                    self._player.pause(bool(command["paused"]))
            except WebSocketDisconnect:
                return
            except BundleError as error:
                await self._viewer.send_json({"type": "refused", "message": str(error)})
            except (ValueError, TypeError, KeyError):
                await self._viewer.send_json({"type": "refused", "message": "this is no command"})


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one.

    Raises:
        ValueError: it cannot be had; the message says why
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OverflowError:
        raise ValueError(f"port must be 0 to 65535, not {port}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of {host} is in use; choose another with --port, or 0 for any free one"
            ) from None
        reason = str(error.strerror).partition(" (while")[0]  # Python repeats the address after it
        raise ValueError(f"cannot listen on {host}, port {port}: {reason}") from None


def url_of(listening: socket.socket) -> str:
    """The page's address."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until the user interrupts it, or the process is asked to end."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            ws="websockets-sansio",
            lifespan="off",
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=2,
        )
    )
    # uvicorn repeats the signal when it has shut down; both then end here, and what is open is closed.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run([listening])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
