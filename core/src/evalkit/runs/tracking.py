"""What a tracker of experiments is told about a run: who it is, how far it is, and what came out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evalkit.runs.folder import RESULTS

if TYPE_CHECKING:
    from evalkit.results import RunResult
    from evalkit.runs.context import RunContext
    from evalkit.runs.progress import RunProgress


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run at its start. `id` stays the same when the run is resumed; no parameter holds a secret.

    `started` is in seconds since 1970.
    """

    id: str
    project: str
    name: str
    parameters: dict[str, Any]
    started: float


@dataclass(frozen=True, slots=True)
class TrackedResult:
    """A run at its end: its metrics, and files to keep with it. `ended` is in seconds since 1970.

    Metrics are named "task/metric", with ".filter" behind where a filter has a name, and "_stderr" for errors.
    """

    metrics: dict[str, float]
    files: tuple[Path, ...]
    ended: float


class Tracker(Protocol):
    """One run at a tracker. Its methods are called from one thread, in this order, and may raise whatever they like."""

    def start(self, run: TrackedRun) -> None:
        """Create the run, or continue the one of the same id."""

    def progress(self, metrics: dict[str, float], answered: int) -> None:
        """Add numbers that are true now, once `answered` requests have an answer."""

    def finish(self, result: TrackedResult) -> None:
        """Add the result and end the run."""


def tracked_run(project: str, run: RunContext) -> TrackedRun:
    """The run's id, name and parameters."""
    manifest = run.folder.manifest()
    spec = {name: value for name, value in _flat(manifest["spec"]) if value is not None}
    return TrackedRun(
        id=manifest.get("id") or _id_of_an_older_run(manifest),
        project=project,
        name=run.folder.path.name,
        parameters={
            **spec,
            "model.fingerprint": (manifest.get("model") or {}).get("fingerprint") or "none",
            "prompts": manifest.get("prompts", ""),
            **dict(_flat({"engine": run.engine})),
        },
        started=time.time(),
    )


def tracked_result(run: RunContext, result: RunResult) -> TrackedResult:
    """The run's metrics and files. Call it once results.json is written."""
    metrics = {**dict(_scores(result)), **dict(_costs(result))}
    return TrackedResult(metrics=metrics, files=(run.folder.path / RESULTS,), ended=time.time())


def progress_metrics(progress: RunProgress) -> dict[str, float]:
    """A run's progress under the names that trackers see."""
    found: dict[str, float] = {
        "progress/answered": progress.answered,
        "progress/total": progress.total,
        "progress/failed": progress.failed,
        "progress/seconds": progress.seconds,
    }
    if progress.tokens is not None and progress.tokens_per_second is not None:
        found |= {"progress/tokens": progress.tokens.computed, "progress/tokens_per_second": progress.tokens_per_second}
    return {name: float(value) for name, value in found.items()}


def _id_of_an_older_run(manifest: Mapping[str, Any]) -> str:
    """For runs whose run.json has no id yet."""
    return hashlib.sha256(f"{manifest.get('created')} {manifest.get('prompts')}".encode()).hexdigest()[:32]


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
