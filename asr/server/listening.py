"""Where the server listens: known before anything is loaded, so that a port that is taken is said at once."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from asr.errors import RillError

DEAD_PEER_MS = 30_000  # after which a connection is closed whose peer acknowledges nothing


def listen(host: str, port: int) -> socket.socket:
    """A socket that notices peers which have vanished, or read nothing. Raises RillError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit all three
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise RillError(
            f"Port {port} of '{host}' cannot be used ({error.args[-1]}): choose another with --port, "
            f"or stop the program that holds it."
        ) from error
    return listener


def is_local(listener: socket.socket) -> bool:
    """Whether this computer alone reaches it."""
    return ip_address(listener.getsockname()[0]).is_loopback
