"""Runs reach Trackio itself, offline; a store that cannot be written loses no run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from evalkit.testing.trackers import Seen, TrackerTests

pytest.importorskip("trackio", reason="trackio is not installed")
pytest.importorskip("evalkit_tasks_starter", reason="evalkit-tasks-starter is not installed")
READER = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage as store

project = sys.argv[1]
artifacts = json.dumps(store.get_artifacts(project), default=str)
found = [(name, store.get_run_config(project, name), store.get_logs(project, name)) for name in store.get_runs(project)]
print(json.dumps([found, artifacts], default=str))
"""


class TestTrackio(TrackerTests):
    """Its storage is read in a process of its own: Trackio takes TRACKIO_DIR when it is imported."""

    variable: ClassVar[str] = "EVALKIT_TRACKIO"
    broken: ClassVar[dict[str, str]] = {"TRACKIO_DIR": "/dev/null/store"}

    def store(self, folder: Path) -> dict[str, str]:
        """A folder of databases."""
        return {"TRACKIO_DIR": str(folder / "store")}

    def seen(self, folder: Path, project: str) -> list[Seen]:
        """What Trackio's own storage holds."""
        if not (folder / "store" / f"{project}.db").is_file():
            return []
        done = subprocess.run(
            [sys.executable, "-c", READER, project],
            env={**os.environ, **self.store(folder)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        runs, artifacts = json.loads(done.stdout.splitlines()[-1])
        files = ["results.json"] if "-results" in artifacts else []
        return [Seen(name, config or {}, _latest(rows), files) for name, config, rows in runs]


def _latest(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: value for row in rows for name, value in row.items()}
