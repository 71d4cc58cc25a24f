"""Sockets that listen, and how they are called."""

from __future__ import annotations

import errno
import ipaddress
import socket

__all__ = ["Address", "address_of", "addresses_of", "is_local", "listen", "strip_brackets", "url_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one.

    Args:
        host: an address, or a name that has one; empty: all of this machine's

    Raises:
        ValueError: it cannot be had; the message says why
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, not {port}")
    try:
        found = socket.getaddrinfo(strip_brackets(host) or "0.0.0.0", port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address, family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of {host} is in use; choose another with --port, or 0 for any free one"
            ) from None
        reason = str(error.strerror).partition(" (while")[0]  # Python repeats the address after it
        raise ValueError(f"cannot listen on {host}, port {port}: {reason}") from None
    except UnicodeError:  # of a name, to its form in the DNS
        raise ValueError(f"cannot listen on {host!r}: this is no name") from None


def url_of(listening: socket.socket) -> str:
    """The address of what listens there."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine reaches what listens there."""
    address = address_of(listening.getsockname()[0])
    return address is not None and address.is_loopback


def strip_brackets(host: str) -> str:
    """An IPv6 address without the brackets that it has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def address_of(text: str) -> Address | None:
    """The address that a text is; None where it is a name or nothing."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def addresses_of(name: str) -> set[Address]:
    """The addresses that a name has; none where it is not known."""
    try:
        found = socket.getaddrinfo(name, None)
    except OSError:
        return set()
    return {address for entry in found if (address := address_of(str(entry[4][0]))) is not None}
