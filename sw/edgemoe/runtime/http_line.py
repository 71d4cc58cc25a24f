"""A line to a server: one request after the other over a kept connection, within a time, that may be given up."""

from __future__ import annotations

import contextlib
import http.client
import select
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgemoe.errors import DeviceError
from edgemoe.runtime.executor import Cancelled, DeviceTimeout

__all__ = ["Answer", "HttpLine"]

_POLL = 0.05  # seconds after which it is looked whether an answer is still wanted
_CHUNK = 1 << 16  # bytes
_UNAVAILABLE, _TIMED_OUT = 503, 504
_LONGEST_PAUSE = 5.0  # seconds that a busy server can make this one wait before it asks again
_LONGEST_MESSAGE = 300  # characters of a server's own words


@dataclass(frozen=True)
class Answer:
    """What a server has answered: ``header`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpLine:
    """Asks one server. One thread at a time may ask; ``close`` may come from any.

    Args:
        url: ``http://host:port``, or https, with or without a path that goes before all others
        token: sent with every request; None: no token
        timeout: seconds that an answer may take, waiting for a busy server included

    Raises:
        ValueError: the URL is none
    """

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"url {url!r} is none: {error}") from None
        is_plain = not (parts.query or parts.fragment or parts.username or parts.password)
        if parts.scheme not in ("http", "https") or not host or not is_plain or not url.isprintable() or " " in url:
            raise ValueError(f"url must be like http://board:8000 or https://board, not {url!r}")
        if not timeout > 0:
            raise ValueError(f"request_timeout must be above 0, not {timeout!r}")
        self.url, self._timeout = url, timeout
        self._host, self._port, self._base = host, port, parts.path.rstrip("/") + "/"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        largest: int = 1 << 20,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Send a request; a server that is busy (503) is asked again when it says so, while there is time.

        Args:
            path: below the URL's
            largest: bytes that the answer's body may have
            cancel: set from another thread to give it up

        Returns:
            The answer, whatever its status is but 503 and 504

        Raises:
            DeviceTimeout: there was no answer in time
            Cancelled: ``cancel`` was set meanwhile
            DeviceError: the server cannot be reached, or does not speak HTTP
        """
        end = time.monotonic() + self._timeout
        while True:
            answer = self._once(method, path, body, {**self._headers, **(headers or {})}, largest, cancel, end)
            if answer.status == _TIMED_OUT:
                raise DeviceTimeout(f"device remote: {self.url} says: {_words(answer)}")
            if answer.status != _UNAVAILABLE:
                return answer
            pause = min(_seconds(answer.headers.get("retry-after")), _LONGEST_PAUSE)
            if time.monotonic() + pause >= end:
                raise DeviceTimeout(f"device remote: {self.url} stayed busy for {self._timeout:g} s: {_words(answer)}")
            _wait(pause, cancel)

    def _once(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        largest: int,
        cancel: threading.Event | None,
        end: float,
    ) -> Answer:
        """One exchange. A kept connection that the server has closed meanwhile is made anew, once."""
        for is_kept in (self._connection is not None, False):
            connection = self._connected(end)
            try:
                connection.request(method, self._base + path, body, dict(headers))
                self._await(connection, cancel, end)
                connection.sock.settimeout(_left(end))
                response = connection.getresponse()
                content = self._read(response, largest, cancel, end)
                found = {name.lower(): value for name, value in response.getheaders()}
                if response.will_close:
                    self.close()
                return Answer(response.status, found, content)
            except TimeoutError:
                self.close()
                raise DeviceTimeout(f"device remote: {self.url} did not answer within {self._timeout:g} s") from None
            except (ConnectionError, http.client.RemoteDisconnected) as error:
                self.close()
                if not is_kept:
                    raise DeviceError(
                        f"device remote: {self.url} broke the connection off ({_reason(error)})"
                    ) from None
            except (http.client.HTTPException, OSError, ValueError) as error:
                self.close()
                raise DeviceError(f"device remote: {self.url} is no server of edgemoe ({_reason(error)})") from None
            except BaseException:
                self.close()
                raise
        raise AssertionError("unreachable")

    def _connected(self, end: float) -> http.client.HTTPConnection:
        if self._connection is not None:
            self._connection.sock.settimeout(_left(end))
            return self._connection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=_left(end))
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=_left(end), context=self._tls)
        try:
            connection.connect()
        except TimeoutError:
            raise DeviceTimeout(f"device remote: {self.url} did not answer within {self._timeout:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a name that has no form in the DNS
            raise DeviceError(f"device remote: {self.url} cannot be reached ({_reason(error)})") from None
        self._connection = connection
        return connection

    def _await(self, connection: http.client.HTTPConnection, cancel: threading.Event | None, end: float) -> None:
        """Until an answer begins."""
        while not select.select([connection.sock], [], [], min(_POLL, _left(end)))[0]:
            _check(cancel)

    def _read(
        self, response: http.client.HTTPResponse, largest: int, cancel: threading.Event | None, end: float
    ) -> bytes:
        parts, size = [], 0
        while chunk := response.read(_CHUNK):
            parts.append(chunk)
            size += len(chunk)
            if size > largest:
                raise ValueError(f"its answer has more than {largest:,} bytes")
            _check(cancel)
            _left(end)
        if response.length:
            raise ConnectionError("the answer is not whole")
        return b"".join(parts)

    def close(self) -> None:
        """Let the connection go; the next request makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("device remote: the request was given up")


def _wait(seconds: float, cancel: threading.Event | None) -> None:
    if cancel is None:
        time.sleep(seconds)
    elif cancel.wait(seconds):
        _check(cancel)


def _seconds(text: str | None) -> float:
    """What ``Retry-After`` says; its other form, a date, counts as a second."""
    return float(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 9 else 1.0


def _words(answer: Answer) -> str:
    """The beginning of a server's own words."""
    return " ".join(answer.body[: 4 * _LONGEST_MESSAGE].decode("utf-8", "replace").split())[:_LONGEST_MESSAGE]


def _reason(error: BaseException) -> str:
    return str(error).strip()[:_LONGEST_MESSAGE] or type(error).__name__
