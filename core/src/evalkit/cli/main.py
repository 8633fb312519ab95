"""Assemble the command line, and turn expected errors into one line and exit status 2."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from evalkit import __version__
from evalkit.cli import cache, check, compare, data, env, export, lists, new, power, rerun, run, runs, show
from evalkit.errors import EvalkitError, one_line
from evalkit.plugins import get_plugins

# Some versions of typer carry a click of their own: only the classes that typer exports are its errors.
UsageError: Any = typer.BadParameter.__mro__[1]
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def _version(show: bool) -> None:
    if show:
        typer.echo(f"evalkit {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Evaluate language models: exact scores, least work, nothing lost."""


def build_app() -> typer.Typer:
    """The app with the core's commands and those of all plugins."""
    app = typer.Typer(
        name="evalkit",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_options)
    run.add(app)
    lists.add(app)
    runs.add(app)
    show.add(app)
    compare.add(app)
    power.add(app)
    rerun.add(app)
    export.add(app)
    check.add(app)
    data.add(app)
    cache.add(app)
    env.add(app)
    new.add(app)
    get_plugins().hook.register_commands(app=app)
    return app


def main() -> NoReturn:
    """Entry point of the `evalkit` script."""
    try:
        status = build_app()(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except EvalkitError as error:
        _fail(one_line(error, 1000), EXIT_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; answers so far are journaled, continue with: evalkit resume latest", EXIT_INTERRUPTED)
    except UsageError as error:
        text = error.format_message()
        _fail(f"{text}{'' if text.endswith(('.', '?')) else '.'} See: evalkit --help", EXIT_USAGE)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    print(f"evalkit: {message}", file=sys.stderr)
    sys.exit(status)
