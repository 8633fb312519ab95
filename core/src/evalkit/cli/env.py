"""`evalkit env create`, `list`, `verify`, `update` and `remove`: engines in environments of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit.cli import complete
from evalkit.cli.output import JSON, print_json, print_table

if TYPE_CHECKING:
    from evalkit.environments.environment import Environment
    from evalkit.environments.installer import OnStep

EXIT_FAULTY, EXIT_INTERRUPTED = 1, 130
ENGINE = Annotated[str, typer.Argument(metavar="ENGINE", autocompletion=complete.engines, help="Name of the engine.")]
NAME = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=complete.environments, help="Name of the environment.")
]


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Keep engines in environments of their own.")
    group.command("create")(create)
    group.command("list")(list_all)
    group.command("verify")(verify)
    group.command("update")(update)
    group.command("remove")(remove)
    app.add_typer(group, name="env")


def create(
    engine: ENGINE,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it [default: ENGINE, or ENGINE-VERSION]")
    ] = None,
    version: Annotated[str | None, typer.Option(metavar="V", help="Version of the engine's library.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="PATH_OR_REQUIREMENT", help="The engine's package [default: the one of this evalkit]"
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Kind of machine, such as cpu or cuda [default: cuda where there is a GPU]"),
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="VERSION_OR_PATH", help="Python to use [default: the best that is here]")
    ] = None,
    constraint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep to these versions: the requirements.lock of another one, say."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be installed, and make nothing.")] = False,
    as_json: bool = JSON,
) -> None:
    """Make an environment for an engine; one that is there stays as it is."""
    from evalkit.environments.environment import Request
    from evalkit.environments.make import create
    from evalkit.environments.plan import make_plan

    request = Request(
        engine=engine,
        name=name or (f"{engine}-{version}" if version else engine),
        version=version,
        source=_absolute(source),
        variant=variant,
        python=python,
        constraint=_absolute(str(constraint)) if constraint else None,
    )
    with _steps() as on_step:
        if dry_run:
            plan = make_plan(request, on_step).as_row()
        else:
            made, new = create(request, on_step)
    if dry_run:
        return print_json(plan) if as_json else _print_fields(plan)
    if as_json:
        return print_json({**made.as_row(), "made": new})
    typer.echo(f"{made.name}: {_contents(made)}, Python {made.python_version}, in {made.folder}")
    if not new:
        typer.echo(f"it was there already. To make it anew: evalkit env update {made.name}")


def list_all(as_json: bool = JSON) -> None:
    """List environments, and interpreters that EVALKIT_<ENGINE>_PYTHON points at."""
    from evalkit.environments.ready import ready_engines, ready_variable
    from evalkit.environments.registry import environments, folders

    found = environments()
    pointed = [(engine, ready_variable(engine)) for engine in ready_engines()]
    if as_json:
        variables = [{"engine": engine, "variable": variable} for engine, variable in pointed]
        return print_json({"environments": [made.as_row() for made in found], "variables": variables})
    rows = [
        (made.name, made.engine, _contents(made), made.variant, made.python_version, _where(made)) for made in found
    ]
    rows += [(variable, engine, "", "", "", os.environ[variable]) for engine, variable in pointed]
    if not rows:
        return typer.echo(f"none in {folders()[0]}. Make one with: evalkit env create ENGINE", err=True)
    print_table(("environment", "engine", "packages", "variant", "python", "where"), rows)


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]", autocompletion=complete.environments, help="Environments or engines [default: all]"
        ),
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Import engines in their environments; status 1 where one does not work."""
    from evalkit.environments.registry import environments, named
    from evalkit.environments.verify import verify

    verdicts = [verify(made) for made in (map(named, names) if names else environments())]
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "name": verdict.environment.name,
                "engine": verdict.environment.engine,
                "python": verdict.environment.python,
                "works": not verdict.problems,
                "problems": list(verdict.problems),
                "next": verdict.next_step,
                "versions": verdict.versions,
                "device": verdict.device,
            }
            for verdict in verdicts
        ]
        print_json(rows)
    for verdict in [] if as_json else verdicts:
        made = verdict.environment
        typer.echo(f"{made.name}: {'does not work' if verdict.problems else 'works'}, {made.python}")
        for key, value in {**verdict.versions, "device": verdict.device}.items():
            typer.echo(f"  {key:<24} {value}" if value else "", nl=bool(value))
        for problem in verdict.problems:
            typer.echo(f"  {problem}")
        if verdict.next_step:
            typer.echo(f"  next: {verdict.next_step}")
    if any(verdict.problems for verdict in verdicts):
        raise typer.Exit(EXIT_FAULTY)


def update(name: NAME, as_json: bool = JSON) -> None:
    """Make an environment anew, as it was asked for; the old one stays until the new one works."""
    from evalkit.environments.make import update

    with _steps() as on_step:
        made = update(name, on_step)
    if as_json:
        return print_json(made.as_row())
    typer.echo(f"{made.name}: {_contents(made)}, Python {made.python_version}, in {made.folder}")


def remove(
    name: NAME,
    yes: Annotated[bool, typer.Option("--yes", help="Even while a process uses it.")] = False,
    as_json: bool = JSON,
) -> None:
    """Remove an environment."""
    from evalkit.environments.make import remove

    folder = remove(name, force=yes)
    if as_json:
        return print_json({"removed": str(folder)})
    typer.echo(f"removed {folder}")


def _absolute(source: str | None) -> str | None:
    """A path as it is from anywhere, for a later update; a requirement as it is."""
    if source is None:
        return None
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else source


def _contents(made: Environment) -> str:
    library = f", {made.library} {made.library_version}" if made.library_version else ""
    return f"{made.distribution} {made.distribution_version}{library}"


def _where(made: Environment) -> str:
    return f"{made.folder}{' (read-only)' if made.read_only else ''}"


def _print_fields(fields: dict[str, Any]) -> None:
    rows = []
    for key, value in fields.items():
        text = " ".join(value) if isinstance(value, list) else value
        text = " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else text
        if text:
            rows.append((key, text))
    print_table(("field", "value"), rows)


@contextmanager
def _steps() -> Iterator[OnStep]:
    """Yield what is told each step: a spinner with the time on a terminal, else a line."""
    try:
        with _spinners() if sys.stderr.isatty() else nullcontext(_say) as on_step:
            yield on_step
    except KeyboardInterrupt:
        typer.echo("evalkit: interrupted; nothing of it was kept. Run the command again to begin anew", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _say(step: str) -> None:
    typer.echo(f"{step} ...", err=True)


@contextmanager
def _spinners() -> Iterator[OnStep]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def show(step: str) -> None:
            for task in bars.tasks:
                bars.update(task.id, total=1, completed=1)
            bars.add_task(step, total=None)

        yield show
