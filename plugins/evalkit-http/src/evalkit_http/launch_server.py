"""Start the evaluation service: `launch_server(ServerArgs(...))`, or `python -m evalkit_http.launch_server`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from evalkit.errors import EvalkitError
from evalkit_http.service.args import ServerArgs

GRACE = 5
"""Seconds that open connections have to end."""


def launch_server(args: ServerArgs | None = None, *, announce: Callable[[str], None] = print) -> None:
    """Serve evaluations until SIGINT or SIGTERM; `announce` gets the server's address once it is bound.

    Raises EvalkitError where that cannot be done. Running jobs are stopped at the end, and continued by the next
    server on the same folder.
    """
    import uvicorn

    from evalkit_http.security import check_bind
    from evalkit_http.service.app import create_app
    from evalkit_http.service.service import Service
    from evalkit_http.sockets import address, bind

    args = args or ServerArgs()
    check_bind(args.host, args.guards)
    with bind(args.host, 0 if args.free_port else args.port) as listener:
        service = Service(args)
        config = uvicorn.Config(create_app(args, service), log_level="warning", timeout_graceful_shutdown=GRACE)
        announce(address(listener))
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            service.close()


def main() -> None:
    """What `python -m evalkit_http.launch_server` does: the same as `evalkit serve`."""
    import typer

    from evalkit_http.commands import serve

    app = typer.Typer(add_completion=False)
    app.command()(serve)
    try:
        app()
    except EvalkitError as error:
        sys.exit(f"evalkit: {error}")


if __name__ == "__main__":
    main()
