"""Adds the commands; the web libraries load when one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def register_commands(app: typer.Typer) -> None:
    """Add `evalkit serve` and `evalkit serve-model`."""
    from evalkit_http import commands
    from evalkit_http.openai import command

    commands.add(app)
    command.add(app)
