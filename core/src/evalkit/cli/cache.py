"""`evalkit cache info`, `prune`, `clear` and `verify`: the answer cache that `evalkit run --cache` uses."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit.cli.output import JSON, print_json, print_table
from evalkit.errors import ConfigError, EvalkitError, one_line

if TYPE_CHECKING:
    from evalkit.answers.store import AnswerStore

EXIT_FAULTY = 1
MIB = 2**20
DAY = 86_400


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Look at the answers that --cache keeps, and delete them.")
    for command in (info, prune, clear, verify):
        group.command(command.__name__)(command)
    app.add_typer(group, name="cache")


def info(as_json: bool = JSON) -> None:
    """Show where the answer cache is, and what it holds."""
    with _store() as store:
        found = store.info()
    if as_json:
        return print_json(dataclasses.asdict(found))
    rows: list[tuple[str, Any]] = [
        ("path", found.path),
        ("answers", f"{found.answers:,}"),
        ("size", f"{found.bytes / MIB:,.1f} of {found.limit / MIB:,.0f} MiB"),
        ("oldest use", _time(found.oldest_use)),
        ("newest use", _time(found.newest_use)),
    ]
    print_table(("field", "value"), rows)


def prune(
    max_mb: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Keep at most N MiB [default: EVALKIT_ANSWER_CACHE_MB, 2048]")
    ] = None,
    unused_days: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Delete what was not used for N days.")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Delete answers, the least recently used ones first."""
    before = 0 if unused_days is None else int(time.time()) - unused_days * DAY
    with _store() as store:
        deleted = store.prune(store.limit if max_mb is None else max_mb * MIB, before)
    _report(deleted, as_json)


def clear(as_json: bool = JSON) -> None:
    """Delete all answers; a damaged file is deleted as a whole."""
    from evalkit.answers.store import store_path

    try:
        with _store() as store:
            deleted = store.clear()
    except _DamagedError:
        deleted = 0
        for suffix in ("", "-wal", "-shm"):
            store_path().with_name(store_path().name + suffix).unlink(missing_ok=True)
    _report(deleted, as_json)


def verify(as_json: bool = JSON) -> None:
    """Check every answer and delete the damaged ones; status 1 where there were any."""
    with _store() as store:
        whole, damaged = store.verify()
    if as_json:
        print_json({"whole": whole, "damaged": damaged})
    else:
        typer.echo(f"{whole:,} answers are whole, {damaged:,} were damaged and are deleted")
    if damaged:
        raise typer.Exit(EXIT_FAULTY)


class _DamagedError(EvalkitError):
    """The file is no cache that this evalkit can read."""


@contextmanager
def _store() -> Iterator[AnswerStore]:
    from filelock import Timeout

    from evalkit.answers.store import AnswerStore, OtherVersionError, limit_bytes, store_path

    limit = limit_bytes()
    try:
        path = store_path()
        with AnswerStore(path, limit) as store:
            yield store
    except (sqlite3.OperationalError, OSError, Timeout) as error:
        raise ConfigError(f"the answer cache cannot be used ({one_line(error)}). Set EVALKIT_CACHE_DIR") from error
    except OtherVersionError as error:
        raise ConfigError(
            f"the answer cache {path} cannot be used ({one_line(error)}). Upgrade evalkit, or set EVALKIT_CACHE_DIR"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _DamagedError(
            f"the answer cache {path} is damaged ({one_line(error)}). Start anew with: evalkit cache clear"
        ) from error


def _report(deleted: int, as_json: bool) -> None:
    if as_json:
        return print_json({"deleted": deleted})
    typer.echo(f"{deleted:,} answers deleted")


def _time(seconds: int | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
