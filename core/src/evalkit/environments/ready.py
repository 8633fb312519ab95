"""EVALKIT_<ENGINE>_PYTHON: an interpreter that somebody made ready, with or without evalkit in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from evalkit import __version__
from evalkit.environments.asking import Report, ask, last_lines, run_python
from evalkit.environments.environment import Environment
from evalkit.environments.links import CORE, linked, package_of
from evalkit.errors import PluginError
from evalkit.plugins import get_plugins

OLDEST = (3, 11)
SHOWN = 160
# What a session's process imports of what evalkit-core requires, and the distributions that these are in.
NEEDED = {
    "annotated_types": "annotated-types",
    "filelock": "filelock",
    "numpy": "numpy",
    "platformdirs": "platformdirs",
    "pluggy": "pluggy",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
}
PURE = ("annotated_types", "platformdirs", "pluggy")
"""Those without compiled code, which work from a link as well."""
PROBE = """
import importlib.util, json, sys
module, needed = sys.argv[1], sys.argv[2].split()
try:
    from evalkit import __version__ as core
except ImportError:
    core = None
missing = [name for name in needed if importlib.util.find_spec(name) is None]
there = importlib.util.find_spec(module) is not None
print(json.dumps({"version": list(sys.version_info[:2]), "core": core, "missing": missing, "engine": there}))
"""


def ready_variable(engine: str) -> str:
    """The name of the environment variable that points at a ready interpreter for `engine`."""
    return f"EVALKIT_{re.sub('[^A-Z0-9]', '_', engine.upper())}_PYTHON"


def ready(engine: str) -> Environment:
    """The environment of the interpreter that the engine's variable names. Raises PluginError where it does not do.

    Where it lacks evalkit, the engine's package or small pure ones that evalkit needs, the process gets links to those
    of this one, and to nothing else.
    """
    variable = ready_variable(engine)
    # Not resolved: a virtual environment's interpreter is a link, and finds its packages by where the link is.
    python = str(Path(os.environ[variable]).expanduser().absolute())
    found = _probe(variable, python, engine)
    report = _ask(variable, python, engine, found)
    return Environment(
        name=variable,
        engine=engine,
        interpreter=python,
        variables=found,
        **report.model_dump(exclude={"problems", "versions", "device"}),
        read_only=True,
    )


def ready_engines() -> list[str]:
    """Engines for which a variable is set, as far as their names can be told from it."""
    known = {ready_variable(spec.name): spec.name for spec in get_plugins().engines}
    names = [name for name in os.environ if re.fullmatch("EVALKIT_[A-Z0-9_]+_PYTHON", name)]
    return sorted(known.get(name, name[len("EVALKIT_") : -len("_PYTHON")].lower().replace("_", "-")) for name in names)


def _probe(variable: str, python: str, engine: str) -> dict[str, str]:
    """Check the interpreter, and return what its process needs in its environment."""
    if not Path(python).is_file():
        raise PluginError(f"{variable} names {python}, which is not there. Set it to an interpreter, or unset it")
    distribution = _distribution(engine)
    place = package_of(distribution)
    module = place.name.removesuffix(".py") if place is not None else distribution.replace("-", "_")
    done = run_python(python, ["-c", PROBE, module, " ".join(NEEDED)])
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        version = tuple(found["version"])
    except (ValueError, IndexError, KeyError, TypeError) as error:
        said = last_lines(done.stdout)[-SHOWN:]
        raise PluginError(f"{variable}: {python} is no working Python ({said}). Set another") from error
    if version < OLDEST:
        raise PluginError(
            f"{variable}: {python} is Python {'.'.join(map(str, version))}, evalkit needs 3.11 or later. Set another"
        )
    lacking = [NEEDED[name] for name in found["missing"] if name not in PURE]
    if lacking:
        packages = " ".join(lacking)
        raise PluginError(
            f"{variable}: {python} lacks what evalkit needs. Install it with: {python} -m pip install {packages}"
        )
    if not found["engine"] and place is None:
        raise PluginError(
            f"{variable}: {python} has no {distribution}, nor has this environment. "
            f"Install it with: {python} -m pip install --no-deps {distribution}"
        )
    links = [CORE] if found["core"] != __version__ else []
    links += [] if found["engine"] else [distribution]
    links += [NEEDED[name] for name in found["missing"]]
    return {"PYTHONPATH": str(linked(links))} if links else {}


def _distribution(engine: str) -> str:
    plugins = get_plugins()
    if engine not in plugins.engines:
        return f"evalkit-{engine}"
    owner = plugins.engines.owner(engine)
    return next(plugin.distribution for plugin in plugins.plugins if plugin.name == owner)


def _ask(variable: str, python: str, engine: str, variables: dict[str, str]) -> Report:
    try:
        return ask(python, engine, variables)
    except PluginError as error:
        raise PluginError(f"{variable}: {error}. Install what is missing there, or unset the variable") from error
