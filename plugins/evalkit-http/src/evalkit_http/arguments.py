"""Where a server listens and whom it lets in: the options that both servers share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HOST = Annotated[str, typer.Option(metavar="ADDRESS", help="Interface to listen on.")]
PORT = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")]
TOKEN_FILE = Annotated[Path | None, typer.Option(metavar="FILE", help="A line for each token: TOKEN, or SCOPES:TOKEN.")]
ALLOW_UNAUTHENTICATED = Annotated[
    bool, typer.Option("--allow-unauthenticated", help="Let others reach this server without a token.")
]
ALLOW_HOST = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A name of this server in URLs. Repeatable [default: any]")
]
