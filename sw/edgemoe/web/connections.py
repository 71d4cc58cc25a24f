"""How many connections a server holds, and for how long it waits for what they ask.

Without limits a few hundred connections that send nothing keep everybody else away: uvicorn waits for a request's head
for ever, and where no file descriptor is left, asyncio prints a traceback for each connection that it cannot take.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BoundedProtocol", "backlog", "most_connections"]

_MOST = 512
_PATIENCE = 10.0  # seconds until a request's head is there
#: Of the file descriptors that a process may have: an answer may need one beside its connection's, and asyncio accepts
#: all of the backlog, some times over, before the protocol is told of the first.
_SHARE, _SHARE_OF_BACKLOG = 4, 16


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def most_connections() -> int:
    """Connections that are held at the same time."""
    return max(1, min(_MOST, _descriptors() // _SHARE))


def backlog() -> int:
    """Connections that may wait to be accepted."""
    return max(1, min(_MOST // _SHARE, _descriptors() // _SHARE_OF_BACKLOG))


class BoundedProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn is not looked into
    """uvicorn's HTTP, for connections that are few and do not dawdle: for ``uvicorn.Config(http=...)``.

    Whoever asks for nothing is waited for ``patience`` seconds, from the connection's beginning or the first byte of
    its next request on. Bodies are the application's to wait for. Where there are too many connections, the one is
    closed that would be closed next.
    """

    patience = _PATIENCE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._deadline: asyncio.TimerHandle | None = None
        super().connection_made(cast(asyncio.Transport, transport))
        self._wait()
        if len(self.connections) > most_connections():
            # Whoever is new may be the one that asks for something, such as a balancer for the server's health.
            idle = [each for each in self.connections if isinstance(each, BoundedProtocol) and each.idle_until]
            min(idle, key=lambda each: each.idle_until).end()

    @property
    def idle_until(self) -> float:
        """When it is closed unless something is asked, on the loop's clock; 0: something is being answered."""
        handle = self._deadline or self.timeout_keep_alive_task
        return 0.0 if handle is None or handle.cancelled() else float(handle.when())

    def end(self) -> None:
        """Close it at once."""
        self._wait_no_more()
        self.connections.discard(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is not self or self._is_answering():
            self._wait_no_more()
        else:
            self._wait()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._wait_no_more()
        super().handle_websocket_upgrade(event)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        """Until the deadline, which more bytes of the same head do not move."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.patience, self.end)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
