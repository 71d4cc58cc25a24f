"""Who may see the demo: requests that call this server by a name of its own, and pages that came from it.

Any web page may make a browser ask this machine for something. Two headers, which no page can forge, tell: ``Host`` has
the name that was asked for, which is a stranger's where that leads here by a trick (DNS rebinding); ``Origin`` has the
page that asks, and a WebSocket may be opened by any.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Doorkeeper", "own_names", "strip_brackets"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)
_FORBIDDEN, _POLICY_VIOLATION = 403, 1008


class Doorkeeper:
    """Middleware that answers strangers with 403 before anything else sees them.

    Args:
        app: what the others get
        host: the address, or the name, that the server listens on
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._names = app, own_names(host)
        self._is_anywhere = _is_unspecified(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (reason := self._refusal(scope)):
            await PlainTextResponse(reason + "\n", _FORBIDDEN)(scope, receive, send)
        elif scope["type"] == "websocket" and self._refusal(scope):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # not yet open: the server answers 403
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str:
        """Why a request is refused; empty where it is not."""
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"]
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return "this server does not have the name by which you call it; start it with: edgemoe demo --host NAME"
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return "other pages may not see this one"
        return ""

    def _is_own(self, host: str) -> bool:
        """Whether a ``Host`` header names this server. Its port may be another's, of a tunnel that leads here."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = strip_brackets(match["name"])
        address = _address(name)
        if address is None:
            return name in self._names
        if (address.version == 6) != (name != match["name"]):
            return False  # only IPv6 has brackets
        return self._is_anywhere or str(address) in self._names  # an address leads nobody astray


def own_names(host: str) -> frozenset[str]:
    """Names and addresses of a server that listens on ``host``, in their usual form.

    An address is its own name; that of this machine alone has all of them, ``localhost`` too. A name stays one, beside
    the addresses that it has. A server on all addresses of a machine has that machine's name.
    """
    host = strip_brackets(host).lower()
    names, address = {host}, _address(host)
    if _is_unspecified(host):
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
        is_local = True
    elif address is None:
        found = _resolved(host)
        names |= {str(each) for each in found}
        is_local = any(each.is_loopback for each in found)
    else:
        names.add(str(address))
        is_local = address.is_loopback
    return frozenset(names | ({"localhost", "127.0.0.1", "::1"} if is_local else set()))


def strip_brackets(host: str) -> str:
    """An IPv6 address without the brackets that it has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _is_unspecified(host: str) -> bool:
    address = _address(strip_brackets(host))
    return host == "" or (address is not None and address.is_unspecified)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _resolved(name: str) -> set[Address]:
    try:
        found = socket.getaddrinfo(name, None)
    except OSError:
        return set()
    return {address for entry in found if (address := _address(str(entry[4][0]))) is not None}
