"""The Python that a server runs under: one that was named, this one, or that of an environment."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.environments import find_environment
from evalkit.environments.asking import last_lines, run_python
from evalkit.environments.ready import ready_variable
from evalkit.errors import MissingDependencyError, PluginError

SHOWN = 160
PROBE = """
import hashlib, importlib.util, json, platform, sys
from importlib.metadata import distributions, packages_distributions
module = sys.argv[1]
there = importlib.util.find_spec(module) is not None
installed = {dist.name: dist.version for dist in distributions() if dist.name}
names = [name for name in installed if name.replace("-", "_").lower() == module.lower()]
names = names or packages_distributions().get(module, [])
text = json.dumps(installed, sort_keys=True)
print(json.dumps({
    "there": there,
    "python": platform.python_version(),
    "library": " ".join([names[0], installed[names[0]]]) if names else None,
    "packages": hashlib.sha256(text.encode()).hexdigest(),
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that has a server's library, what its process needs in its environment, and what is installed there."""

    python: str
    variables: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and of the library, and a hash of all packages."""


def find_interpreter(engine: str, module: str, *, python: str | None = None, env: str | None = None) -> Interpreter:
    """The Python for a server of `engine`, whose library is `module`.

    It is `python`, that of the environment `env`, that of EVALKIT_<ENGINE>_PYTHON, this one, or that of the engine's
    environment, in this order. It needs nothing of evalkit. Raises PluginError, MissingDependencyError.
    """
    if python is not None:
        return _asked("the option 'python'", python, module, engine)
    variable = ready_variable(engine)
    if env is None and variable in os.environ:
        return _asked(variable, os.environ[variable], module, engine)
    if env is None and importlib.util.find_spec(module) is not None:
        # Libraries may lie where only this process's path leads.
        here = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return _asked("this Python", sys.executable, module, engine, here)
    made = find_environment(engine, env)
    if made is None:
        raise MissingDependencyError(
            f"a server of engine {engine!r} needs {module}. Make an environment with: evalkit env create {engine}, "
            f"or set {variable} to a Python that has it"
        )
    return _asked(f"environment {made.name!r}", made.python, module, engine, made.variables)


def _asked(
    source: str, python: str, module: str, engine: str, variables: Mapping[str, str] | None = None
) -> Interpreter:
    # Not resolved: a virtual environment's interpreter is a link, and finds its packages by where the link is.
    path = str(Path(python).expanduser().absolute())
    if not Path(path).is_file():
        raise PluginError(f"{source} names {path}, which is not there. Give the path of a Python that has {module}")
    done = run_python(path, ["-c", PROBE, module], variables)
    try:
        said = json.loads(done.stdout.splitlines()[-1])
        there = said.pop("there")
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        shown = last_lines(done.stdout)[-SHOWN:]
        raise PluginError(f"{source}: {path} is no working Python{shown}. Give another") from error
    if not there:
        raise PluginError(
            f"{source}: {path} has no {module}. Install it there, or make an environment with: "
            f"evalkit env create {engine}"
        )
    own = os.pathsep.join([str(Path(path).parent), os.environ.get("PATH", os.defpath)])
    # Servers start tools (compilers, their own commands) by name.
    return Interpreter(path, {"PATH": own, **(variables or {})}, {k: v for k, v in said.items() if v})
