"""The command line: one typer app, one file a command. Commands parse, call one function, print."""

from evalkit.cli.main import main

__all__ = ["main"]
