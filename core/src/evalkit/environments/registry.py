"""Where environments are, and which one serves an engine.

EVALKIT_ENVS names folders: the first is written to, the others are read only, made beforehand by a checkout or a site.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from evalkit.environments.environment import Environment, read
from evalkit.environments.ready import ready, ready_variable
from evalkit.errors import ConfigError, did_you_mean


def folders() -> list[Path]:
    """The folders that hold environments, the one that is written to first."""
    chosen = [Path(part).expanduser() for part in os.environ.get("EVALKIT_ENVS", "").split(os.pathsep) if part]
    if chosen:
        return chosen
    from platformdirs import user_data_path

    return [user_data_path("evalkit") / "environments"]


def environments() -> list[Environment]:
    """All environments, by name; of two with one name the one in the earlier folder. Half-made ones are not there."""
    found: dict[str, Environment] = {}
    for number, folder in enumerate(folders()):
        for made in _inside(folder, read_only=number > 0):
            found.setdefault(made.name, made)
    return [found[name] for name in sorted(found)]


def _inside(folder: Path, *, read_only: bool) -> Iterator[Environment]:
    if folder.is_dir():
        made = (read(path, read_only=read_only) for path in sorted(folder.iterdir()) if path.is_dir())
        yield from (item for item in made if item is not None)


def get(name: str) -> Environment:
    """The environment named `name`. Raises ConfigError with near names."""
    known = {made.name: made for made in environments()}
    if name not in known:
        raise ConfigError(
            f"there is no environment {name!r}.{did_you_mean(name, known)} Make one with: evalkit env create {name}"
        )
    return known[name]


def named(name: str) -> Environment:
    """The environment named `name`, or the one that serves the engine `name`. Raises ConfigError."""
    if ready_variable(name) in os.environ:
        return ready(name)
    if name in {made.name for made in environments()}:
        return get(name)
    return find_environment(name) or get(name)


def find_environment(engine: str, name: str | None = None, version: str | None = None) -> Environment | None:
    """The environment in which `engine` should run; None where there is none.

    EVALKIT_<ENGINE>_PYTHON wins where neither a name nor a version of the engine's library is asked for. Else it is the
    one with the engine's own name, else the youngest. Raises ConfigError for a name that does not serve the engine, and
    PluginError for a ready interpreter that does not work.
    """
    if name is None and version is None and ready_variable(engine) in os.environ:
        return ready(engine)
    if name is not None:
        made = get(name)
        if engine not in {spec.name for spec in made.engines}:
            raise ConfigError(
                f"environment {name!r} is for engine {made.engine!r}, not {engine!r}. See: evalkit env list"
            )
        return _serving(made, engine)
    fitting = [made for made in environments() if engine in {spec.name for spec in made.engines}]
    if version is not None:
        fitting = [made for made in fitting if made.library_version == version]
    best = max(fitting, key=lambda made: (made.name == engine, made.created), default=None)
    return None if best is None else _serving(best, engine)


def _serving(made: Environment, engine: str) -> Environment:
    return made.model_copy(update={"engine": engine})
