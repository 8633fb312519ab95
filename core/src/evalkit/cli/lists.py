"""`evalkit list-engines`, `list-tasks`, `list-models` and `plugins`: what is installed. Loads no backend."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any

import typer

from evalkit.cli.output import JSON, print_json, print_table
from evalkit.plugins import Registry, get_plugins
from evalkit.specs import TaskSpec


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list-engines")(list_engines)
    app.command("list-tasks")(list_tasks)
    app.command("list-models")(list_models)
    app.command("plugins")(plugins)


def list_engines(as_json: bool = JSON) -> None:
    """List the engines that installed plugins and environments provide."""
    rows = [{**row, "environment": None} for row in _rows(get_plugins().engines)]
    rows += _elsewhere({row["name"] for row in rows})
    if as_json:
        return print_json(rows)
    table = [(r["name"], ", ".join(r["formats"]), ", ".join(r["capabilities"]), _summary(r)) for r in rows]
    _print(("engine", "formats", "capabilities", "summary"), table, "evalkit env create transformers")


def list_tasks(
    pattern: str = typer.Argument("*", help="Show only names that match, for example 'arc_*'; tags match too."),
    as_json: bool = JSON,
) -> None:
    """List the tasks that installed plugins provide."""
    rows = _rows(get_plugins().tasks, lambda spec: _matches(spec, pattern))
    for plugin in get_plugins().broken:
        typer.echo(f"warning: plugin {plugin.name!r} lists no tasks, because it is broken ({plugin.error})", err=True)
    if as_json:
        return print_json(rows)
    table = [(r["name"], r["plugin"], ", ".join(r["tags"]), r["summary"]) for r in rows]
    _print(("task", "plugin", "tags", "summary"), table, "pip install evalkit-tasks-commonsense")


def list_models(as_json: bool = JSON) -> None:
    """List the models that can be named without a path."""
    rows = _rows(get_plugins().models)
    if as_json:
        return print_json(rows)
    table = [(r["name"], ", ".join(r["formats"]), r["summary"]) for r in rows]
    _print(("model", "formats", "summary"), table, "pip install evalkit-smollm2, or give a path or a hub id")


def plugins(as_json: bool = JSON) -> None:
    """List installed plugins, with the cause where one did not load."""
    manager = get_plugins()
    if as_json:
        return print_json(
            {"plugins": [dataclasses.asdict(p) for p in manager.plugins], "conflicts": manager.conflicts()}
        )
    table = [
        (p.name, p.distribution, p.version, "broken" if p.error else "ok", p.error or ", ".join(p.hooks))
        for p in manager.plugins
    ]
    _print(("plugin", "distribution", "version", "state", "hooks or cause"), table, "pip install evalkit-transformers")
    for sentence in manager.conflicts():
        typer.echo(f"conflict: {sentence}")


def _rows(registry: Registry[Any], wanted: Callable[[Any], bool] = lambda spec: True) -> list[dict[str, Any]]:
    """The wanted specs' fields. They are not copied: there are 15,000 tasks."""
    specs = [spec for spec in registry if wanted(spec)]
    names = [field.name for field in dataclasses.fields(specs[0])] if specs else []
    return [{**{name: getattr(spec, name) for name in names}, "plugin": registry.owner(spec.name)} for spec in specs]


def _elsewhere(here: set[str]) -> list[dict[str, Any]]:
    """Engines that only environments have."""
    from evalkit.environments import environments

    found: dict[str, dict[str, Any]] = {}
    for made in environments():
        for spec in made.engines:
            row = {**dataclasses.asdict(spec), "plugin": made.plugin, "environment": made.name}
            found.setdefault(spec.name, row)
    return [found[name] for name in sorted(found.keys() - here)]


def _summary(row: dict[str, Any]) -> str:
    where = f" (in environment {row['environment']})" if row["environment"] else ""
    return f"{row['summary']}{where}"


def _matches(spec: TaskSpec, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (spec.name, *spec.tags))


def _print(columns: tuple[str, ...], rows: list[tuple[Any, ...]], install: str) -> None:
    if rows:
        print_table(columns, rows)
    else:
        typer.echo(f"none found. Try: {install}", err=True)
