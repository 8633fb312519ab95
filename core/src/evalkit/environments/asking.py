"""Ask another Python about its engine, and say in one line why it does not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evalkit.errors import PluginError
from evalkit.processes import CAUSES, NOT_INHERITED
from evalkit.specs import EngineSpec

PATIENCE = 600
"""Seconds; a large library on a slow disk takes minutes to import."""
NOT_FOR_OTHERS = (*NOT_INHERITED, "PYTHONWARNINGS", "PYTHONSAFEPATH", "EVALKIT_PLUGINS")
NOISE = ("WARNING:", "Looking in ", "[notice]", "Collecting ")
SHOWN_LINES, SHOWN_CHARACTERS = 8, 500


class Report(BaseModel):
    """What `evalkit.environments.inside` says."""

    model_config = ConfigDict(frozen=True)

    python_version: str
    core_version: str
    plugin: str
    distribution: str
    distribution_version: str
    engines: tuple[EngineSpec, ...]
    problems: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    device: str | None = None


class Said(BaseModel):
    """An answer: a report, or why there is none."""

    error: str | None = None


def ask(python: str, engine: str, variables: Mapping[str, str], *, check: bool = False) -> Report:
    """What the interpreter `python` says of `engine`. Raises PluginError with the cause."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.json"
        words = ["-m", "evalkit.environments.inside", engine, str(file), *(["--check"] if check else [])]
        done = run_python(python, words, variables)
        if done.returncode != 0 or not file.exists():
            raise PluginError(f"{python} {ending(done.returncode)}{last_lines(done.stdout)}")
        text = file.read_text(encoding="utf-8")
    if (error := Said.model_validate_json(text).error) is not None:
        raise PluginError(f"{python} says: {error}")
    return Report.model_validate_json(text)


def run_python(
    python: str, words: list[str], variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter to its end; what it prints is in `stdout`. Raises PluginError where it cannot be started."""
    try:
        return subprocess.run(
            [python, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env={**own_environment(), **(variables or {})},
        )
    except OSError as error:
        raise PluginError(f"{python} cannot be started ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise PluginError(f"{python} does not answer within {PATIENCE} seconds") from error


def own_environment() -> dict[str, str]:
    """This process's environment without what belongs to its own Python."""
    return {name: value for name, value in os.environ.items() if name not in NOT_FOR_OTHERS}


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with status {code}"
    number = signal.Signals(-code)
    return f"was ended by {number.name} ({CAUSES.get(number, 'no common cause')})"


def last_lines(text: str) -> str:
    """The last lines of what a process printed, as the end of a message; empty where it printed nothing."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(NOISE)][-SHOWN_LINES:]
    said = " | ".join(lines)
    return f": {said if len(said) <= SHOWN_CHARACTERS else '…' + said[-SHOWN_CHARACTERS:]}" if said else ""
