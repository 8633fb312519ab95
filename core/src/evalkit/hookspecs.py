"""The whole plugin API: every hook, typed, one sentence each. Implement any of them with `@evalkit.hookimpl`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from evalkit.datasets import DatasetSpec
    from evalkit.results import RunResult, Sample
    from evalkit.runs.context import RunContext
    from evalkit.runs.progress import RunProgress
    from evalkit.specs import EngineSpec, ModelSpec, TaskFamily, TaskSpec
    from evalkit.tasks.metrics import Metric

hookspec = pluggy.HookspecMarker("evalkit")


@hookspec
def register_engines(register: Callable[[EngineSpec], None]) -> None:
    """Register engines selectable with `--engine NAME`."""


@hookspec
def register_tasks(register: Callable[[TaskSpec | TaskFamily], None]) -> None:
    """Register tasks and groups of tasks selectable by name."""


@hookspec
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Register models selectable with `--model NAME`."""


@hookspec
def register_metrics(register: Callable[[Metric], None]) -> None:
    """Register metrics that tasks name."""


@hookspec
def register_commands(app: typer.Typer) -> None:
    """Add commands to the `evalkit` command line."""


@hookspec(firstresult=True)
def open_dataset(dataset: DatasetSpec, split: str, data_dir: str | None) -> Sequence[dict[str, Any]] | None:
    """Return the documents of a split, or None to let the next plugin try; the first result wins."""


@hookspec
def run_started(run: RunContext) -> None:
    """Called once the run folder is ready and before the first request."""


@hookspec
def run_progressed(run: RunContext, progress: RunProgress) -> None:
    """Called while answers arrive, every five seconds at most, and once when all are there."""


@hookspec
def sample_scored(run: RunContext, sample: Sample) -> None:
    """Called for every document of every task as it is scored, in document order within a task."""


@hookspec
def run_finished(run: RunContext, result: RunResult) -> None:
    """Called once all tasks are scored, before the run is marked as finished."""
