"""A run as a run of MLflow. The client is used, not `mlflow.start_run`: a caller's own run stays untouched."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from evalkit.engine import batched

if TYPE_CHECKING:
    from evalkit.runs.tracking import TrackedResult, TrackedRun

TAG = "evalkit.run"
"""Holds the run's id: a resumed run is found by it."""
LONGEST_VALUE = 500
PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 100, 1000
"""What MLflow's servers take in one request."""


class Tracker:
    """One run at MLFLOW_TRACKING_URI, or where MLflow itself keeps runs."""

    def __init__(self) -> None:
        self._client = MlflowClient()
        self._run_id = ""

    def start(self, run: TrackedRun) -> None:
        """Create the run with its parameters, or continue it."""
        client = self._client
        found = client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else client.create_experiment(run.project)
        before = client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{run.id}'", max_results=1)
        if before:
            self._run_id = before[0].info.run_id
            client.update_run(self._run_id, status="RUNNING")
        else:
            started = _milliseconds(run.started)
            made = client.create_run(experiment, start_time=started, tags={TAG: run.id}, run_name=run.name)
            self._run_id = made.info.run_id
        self._add_parameters(run, before[0].data.params if before else {})

    def progress(self, metrics: dict[str, float], answered: int) -> None:
        """Add points at the step `answered`."""
        self._add_metrics(metrics, _milliseconds(time.time()), answered)

    def finish(self, result: TrackedResult) -> None:
        """Add metrics and files, and end the run."""
        ended = _milliseconds(result.ended)
        self._add_metrics(result.metrics, ended, 0)
        for file in result.files:
            self._client.log_artifact(self._run_id, str(file))
        self._client.set_terminated(self._run_id, end_time=ended)

    def _add_parameters(self, run: TrackedRun, known: dict[str, str]) -> None:
        # A parameter cannot change: an attempt on another machine leaves those of the first.
        named = {_name(name): str(value)[:LONGEST_VALUE] for name, value in run.parameters.items()}
        new = [Param(name, value) for name, value in named.items() if name not in known]
        for some in batched(new, PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run_id, params=some)

    def _add_metrics(self, metrics: dict[str, float], milliseconds: int, step: int) -> None:
        points = [Metric(_name(name), value, milliseconds, step) for name, value in metrics.items()]
        for some in batched(points, METRICS_AT_ONCE):
            self._client.log_batch(self._run_id, metrics=some)


def _name(text: str) -> str:
    """`text` with what MLflow's names may not hold replaced."""
    return re.sub(r"[^\w\-. /]", "_", text)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
