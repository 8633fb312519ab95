"""A run as a run of Trackio."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import trackio

if TYPE_CHECKING:
    from evalkit.runs.tracking import TrackedResult, TrackedRun

SHOWN_ID = 8


class Tracker:
    """One run where TRACKIO_DIR says, or at the server or Space that Trackio's own variables name."""

    def __init__(self) -> None:
        self._run: Any = None
        self._name = ""

    def start(self, run: TrackedRun) -> None:
        """Create the run with its config, or continue it."""
        # Trackio continues runs by their name: another run of the same name must not be taken for this one.
        self._name = f"{run.name}-{run.id[:SHOWN_ID]}"
        self._run = trackio.init(
            project=run.project,
            name=self._name,
            config=run.parameters,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def progress(self, metrics: dict[str, float], answered: int) -> None:
        """Add a row."""
        self._run.log(metrics)

    def finish(self, result: TrackedResult) -> None:
        """Add metrics and files, and end the run."""
        try:
            self._run.log(result.metrics)
            for file in result.files:
                name = re.sub(r"[^\w\-.]", "-", f"{self._name}-{file.stem}")
                self._run.log_artifact(str(file), name=name, type="evaluation")
        finally:
            self._run.finish()
