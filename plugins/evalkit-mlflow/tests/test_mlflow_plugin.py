"""Runs reach MLflow itself, offline; a store that cannot be written loses no run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest

from evalkit.testing.trackers import Seen, TrackerTests

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
pytest.importorskip("evalkit_tasks_starter", reason="evalkit-tasks-starter is not installed")


class TestMLflow(TrackerTests):
    """MLflow keeps runs in plain files only where it is told that this is meant."""

    variable: ClassVar[str] = "EVALKIT_MLFLOW"
    broken: ClassVar[dict[str, str]] = {"MLFLOW_TRACKING_URI": "nonsense://nowhere"}

    @pytest.fixture(autouse=True)
    def _files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(os.environ, "MLFLOW_ALLOW_FILE_STORE", "true")

    def store(self, folder: Path) -> dict[str, str]:
        """A folder of files."""
        return {"MLFLOW_TRACKING_URI": (folder / "store").as_uri()}

    def seen(self, folder: Path, project: str) -> list[Seen]:
        """What MLflow's own client finds."""
        if not (folder / "store").is_dir():
            return []
        client = mlflow.MlflowClient(self.store(folder)["MLFLOW_TRACKING_URI"])
        experiment = client.get_experiment_by_name(project)
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        return [
            Seen(
                run.info.run_name,
                run.data.params,
                run.data.metrics,
                [file.path for file in client.list_artifacts(run.info.run_id)],
            )
            for run in found
            if run.data.params
        ]
