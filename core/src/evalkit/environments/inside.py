"""What an environment's own Python says of its engine: `python -m evalkit.environments.inside ENGINE FILE`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import platform
import sys
import traceback
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.errors import EvalkitError, one_line
from evalkit.plugins import get_plugins
from evalkit.specs import load_object


def describe(engine: str, *, check: bool) -> dict[str, Any]:
    """The engine's package and all engines in it; if `check`, also whether its libraries load, and on what device."""
    manager = get_plugins()
    spec = manager.engine(engine)
    owner = manager.engines.owner(engine)
    plugin = next(plugin for plugin in manager.plugins if plugin.name == owner)
    said: dict[str, Any] = {
        "python_version": platform.python_version(),
        "core_version": __version__,
        "plugin": owner,
        "distribution": plugin.distribution,
        "distribution_version": plugin.version,
        "engines": [dataclasses.asdict(spec) for spec in manager.engines if manager.engines.owner(spec.name) == owner],
    }
    if check:
        recipe = _recipe(spec.load)
        said |= {"problems": _problems(spec.load, recipe.get("imports", ()))}
        said |= {"versions": _versions(recipe.get("library"))}
        said |= {"device": None if said["problems"] else _device(recipe.get("device"))}
    return said


def _recipe(load: str) -> dict[str, Any]:
    import tomllib

    file = files(load.partition(":")[0].partition(".")[0]).joinpath("environment.toml")
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _problems(load: str, modules: tuple[str, ...]) -> list[str]:
    """A line for everything that does not import."""
    found = []
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a library raises is its report
            traceback.print_exc()
            found.append(f"import {module}: {type(error).__name__}: {one_line(error)}")
    try:
        load_object(load)
    except Exception as error:
        traceback.print_exc()
        found.append(one_line(error))
    return found


def _versions(library: str | None) -> dict[str, str]:
    from evalkit.runs.environment import package_versions

    found = package_versions()
    if library is not None and library not in found:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def _device(reference: str | None) -> str | None:
    if reference is None:
        return None
    try:
        return str(load_object(reference)())
    except Exception as error:
        traceback.print_exc()
        return f"unknown ({type(error).__name__}: {one_line(error)})"


def main() -> None:
    """Write what is known to the file, as JSON; libraries may print what they like."""
    engine, file, *flags = sys.argv[1:]
    try:
        said = describe(engine, check="--check" in flags)
    except EvalkitError as error:
        said = {"error": one_line(error)}
    Path(file).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
