"""A run as a run of Weights & Biases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import wandb

if TYPE_CHECKING:
    from evalkit.runs.tracking import TrackedResult, TrackedRun


class Tracker:
    """One run, with WANDB_MODE, WANDB_ENTITY and the other variables of wandb's own."""

    def __init__(self) -> None:
        self._run: Any = None
        self._name = ""

    def start(self, run: TrackedRun) -> None:
        """Create the run with its config; a resumed one has the same id and is continued."""
        # Nothing of the process is captured: its output, its machine's load and its code are no part of a run's result.
        settings = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True)
        self._name = run.name
        self._run = wandb.init(
            project=run.project,
            id=run.id,
            resume="allow",
            name=run.name,
            job_type="evaluation",
            config=run.parameters,
            settings=settings,
            reinit="create_new",
        )

    def progress(self, metrics: dict[str, float], answered: int) -> None:
        """Add a row to the run's history."""
        self._run.log(metrics)

    def finish(self, result: TrackedResult) -> None:
        """Add metrics and files, and end the run."""
        try:
            self._run.log(result.metrics)
            artifact = wandb.Artifact(re.sub(r"[^\w\-.]", "-", f"{self._name}-results"), "evaluation")
            for file in result.files:
                artifact.add_file(str(file))
            self._run.log_artifact(artifact)
        finally:
            self._run.finish()
