"""Bind an address before a server starts, so that a port of 0 is known and an error is one line."""

from __future__ import annotations

import socket

from evalkit.errors import ConfigError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the address is taken or not of this machine."""
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    # asyncio turns Nagle's delay of 40 ms off only for sockets that say that they are TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((name, port))
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        cause = error.strerror or str(error)
        raise ConfigError(f"{host}:{port} cannot be bound ({cause}). Choose another --host or --port") from error


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
