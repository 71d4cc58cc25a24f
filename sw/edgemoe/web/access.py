"""Who may ask a server: whoever has its token; or requests that call it by a name of its own, from pages of its own.

Any web page may make a browser ask this machine for something. Two headers, which no page can forge, tell: ``Host`` has
the name that was asked for, which is a stranger's where that leads here by a trick (DNS rebinding); ``Origin`` has the
page that asks, and a WebSocket may be opened by any.
"""

from __future__ import annotations

import hmac
import re
import socket
from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edgemoe.web.listening import address_of, addresses_of, strip_brackets

__all__ = ["Doorkeeper", "TokenKeeper", "check_token", "own_names"]

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)  # what RFC 6750 lets a bearer's token have
_SHORTEST_TOKEN = 16
_UNAUTHORIZED, _FORBIDDEN, _POLICY_VIOLATION = 401, 403, 1008


def check_token(token: str, where: str) -> str:
    """A token, if it can be one; ``where`` it is from is for the message, which does not repeat it.

    Raises:
        ValueError: it is too short to be a secret, or has letters that a header may not have
    """
    if len(token) < _SHORTEST_TOKEN or not _TOKEN.fullmatch(token):
        raise ValueError(
            f"{where}: a token must be at least {_SHORTEST_TOKEN} letters, digits or -._~+/=; "
            f"make one with: openssl rand -hex 32"
        )
    return token


class TokenKeeper:
    """Middleware that answers 401 to whoever does not bear the token.

    Args:
        app: what the others get
        token: as ``check_token`` has it
        open_paths: what everybody may ask for
    """

    def __init__(self, app: ASGIApp, token: str, open_paths: Collection[str]) -> None:
        self._app, self._token, self._open_paths = app, f"bearer {token}".encode(), frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open_paths and not self._is_borne(scope):
            headers = {"WWW-Authenticate": "Bearer"}
            message = "this server wants a token: send the header Authorization: Bearer TOKEN"
            await JSONResponse({"error": message}, _UNAUTHORIZED, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_borne(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + token.strip(), self._token)


class Doorkeeper:
    """Middleware that answers strangers with 403 before anything else sees them.

    Args:
        app: what the others get
        host: the address, or the name, that the server listens on
        verb: that started the server, for messages
    """

    def __init__(self, app: ASGIApp, host: str, verb: str) -> None:
        self._app, self._names, self._verb = app, own_names(host), verb
        self._is_anywhere = _is_unspecified(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (reason := self._refusal(scope)):
            await JSONResponse({"error": reason}, _FORBIDDEN)(scope, receive, send)
        elif scope["type"] == "websocket" and self._refusal(scope):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # not yet open: the server answers 403
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str:
        """Why a request is refused; empty where it is not."""
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"]
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return (
                "this server does not have the name by which you call it; start it with: "
                f"edgemoe {self._verb} --host NAME"
            )
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return "other pages may not see this one"
        return ""

    def _is_own(self, host: str) -> bool:
        """Whether a ``Host`` header names this server. Its port may be another's, of a tunnel that leads here."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = strip_brackets(match["name"])
        address = address_of(name)
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
    names, address = {host}, address_of(host)
    if _is_unspecified(host):
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
        is_local = True
    elif address is None:
        found = addresses_of(host)
        names |= {str(each) for each in found}
        is_local = any(each.is_loopback for each in found)
    else:
        names.add(str(address))
        is_local = address.is_loopback
    return frozenset(names | ({"localhost", "127.0.0.1", "::1"} if is_local else set()))


def _is_unspecified(host: str) -> bool:
    address = address_of(strip_brackets(host))
    return host == "" or (address is not None and address.is_unspecified)
