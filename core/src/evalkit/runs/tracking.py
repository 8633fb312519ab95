"""What a tracker of experiments is told about a run, and the promise that none of them can lose one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import one_line
from evalkit.runs.folder import RESULTS

if TYPE_CHECKING:
    from evalkit.results import RunResult
    from evalkit.runs.context import RunContext

PROJECT = "evalkit"
OFF, PLAIN_ON = ("", "0", "false", "off", "no"), ("1", "true", "on", "yes")


@dataclass(frozen=True, slots=True)
class Tracked:
    """A finished run as trackers see it. Times are seconds since 1970; no parameter holds a secret.

    Metrics are named "task/metric", with ".filter" behind where a filter has a name, and "_stderr" for errors.
    """

    project: str
    name: str
    parameters: dict[str, Any]
    metrics: dict[str, float]
    files: tuple[Path, ...]
    started: float
    ended: float


def track(variable: str, run: RunContext, result: RunResult, send: Callable[[Tracked], None]) -> None:
    """Send the run where the environment variable is set: to the project it names, or to "evalkit" where it says 1.

    Whatever the tracker raises becomes one line on stderr: the run is complete without it.
    """
    project = os.environ.get(variable, "").strip()
    if project.lower() in OFF:
        return
    try:
        send(tracked(PROJECT if project.lower() in PLAIN_ON else project, run, result))
    except (Exception, SystemExit) as error:  # somebody else's code, and perhaps their server
        cause = f"{type(error).__name__}: {one_line(error)}"
        print(f"warning: {variable} is set, but this run was not logged ({cause}); it is complete", file=sys.stderr)


def tracked(project: str, run: RunContext, result: RunResult) -> Tracked:
    """The run's name, parameters, metrics and files. Call it once results.json is written."""
    manifest = run.folder.manifest()
    ended = time.time()
    spec = {name: value for name, value in _flat(manifest["spec"]) if value is not None}
    return Tracked(
        project=project,
        name=run.folder.path.name,
        parameters={
            **spec,
            "model.fingerprint": manifest["model"]["fingerprint"] or "none",
            "prompts": manifest.get("prompts", ""),
            **dict(_flat({"engine": run.engine})),
        },
        metrics={**dict(_scores(result)), **dict(_costs(result))},
        files=(run.folder.path / RESULTS,),
        started=ended - result.seconds.total,
        ended=ended,
    )


def _scores(result: RunResult) -> Iterator[tuple[str, float]]:
    for task, row in result.results.items():
        for key, value in row.items():
            metric, _, filter_name = key.partition(",")
            if isinstance(value, (int, float)):
                yield f"{task}/{metric}{'' if filter_name == 'none' else f'.{filter_name}'}", float(value)


def _costs(result: RunResult) -> Iterator[tuple[str, float]]:
    yield from result.cost.numbers()
    yield "errors", float(result.errors)
    yield "unusable_documents", float(result.unusable)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as "outer.inner" names; lists of plain values as one text."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", value
