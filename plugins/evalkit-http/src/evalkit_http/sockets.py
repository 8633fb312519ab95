"""Bind an address before a server starts, so that a port of 0 is known and an error is one line."""

from __future__ import annotations

import socket

from evalkit.errors import ConfigError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the address is taken or not of this machine."""
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    try:
        return socket.create_server((name, port), family=family, backlog=BACKLOG)
    except OSError as error:
        cause = error.strerror or str(error)
        raise ConfigError(f"{host}:{port} cannot be bound ({cause}). Choose another --host or --port") from error


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
