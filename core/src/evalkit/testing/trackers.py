"""What every tracker's plugin must do, as tests to inherit: subclass TrackerTests and say how its store is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

TASK, SCORE = "starter_arithmetic", "exact_match"
WORDS = ("-m", "evalkit", "run", TASK, "--engine", "evalkit.testing.fake:Fake", "--model", "any", "--output", "run")
SECONDS = 120
REQUESTS = 6


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as its tracker shows it; of each metric the latest value."""

    name: str
    parameters: dict[str, Any]
    metrics: dict[str, float]
    files: list[str] = field(default_factory=list)


class TrackerTests:
    """Needs evalkit-tasks-starter. Each test runs evalkit in a fresh process: trackers keep state."""

    variable: ClassVar[str]
    """The environment variable that switches the tracker on."""
    broken: ClassVar[dict[str, str]]
    """Variables of the tracker's own with which it must fail."""

    def store(self, folder: Path) -> dict[str, str]:
        """Variables with which the tracker keeps its runs below `folder`."""
        raise pytest.UsageError("a tracker's tests override `store`")

    def seen(self, folder: Path, project: str) -> list[Seen]:
        """The runs of a project in that store; none where there is no store yet."""
        raise pytest.UsageError("a tracker's tests override `seen`")

    def test_a_run_is_logged_with_parameters_metrics_and_results(self, tmp_path: Path) -> None:
        """What was asked, each score, what it cost, how far it came, and results.json."""
        done = evalkit(tmp_path, "--limit", "3", **{self.variable: "nightly"}, **self.store(tmp_path))
        assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
        (run,) = self.seen(tmp_path, "nightly")
        assert run.name.startswith("run")
        assert (run.parameters["tasks"], str(run.parameters["limit"])) == (TASK, "3")
        assert {"model.fingerprint", "prompts", "engine.class"} <= set(run.parameters)
        assert run.metrics[f"{TASK}/{SCORE}.last-number"] == results(tmp_path)[f"{SCORE},last-number"]
        assert {f"{TASK}/{SCORE}_stderr.last-number", "tokens/unique", "seconds/total"} <= set(run.metrics)
        assert (run.metrics["progress/answered"], run.metrics["progress/total"]) == (3, 3)
        assert run.files == ["results.json"]

    def test_a_killed_run_is_seen_and_continued(self, tmp_path: Path) -> None:
        """It shows up before it ends; once it is resumed there is still one run, and it is complete."""
        variables = {self.variable: "1", **self.store(tmp_path)}
        words = [sys.executable, *WORDS, "--limit", str(REQUESTS), "--engine-arg", "delay=4"]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(words, cwd=tmp_path, env=_clean(variables), stdout=quiet, stderr=quiet) as process:
            while not self.seen(tmp_path, "evalkit") and process.poll() is None:
                time.sleep(0.2)
            was_running = process.poll() is None
            process.kill()
        assert was_running
        (before,) = self.seen(tmp_path, "evalkit")
        assert f"{TASK}/{SCORE}.last-number" not in before.metrics
        manifest = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
        manifest["spec"]["engine_args"]["delay"] = 0
        (tmp_path / "run" / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
        done = _process(tmp_path, "-m", "evalkit", "resume", "run", **variables)
        assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
        (after,) = self.seen(tmp_path, "evalkit")
        assert (after.name, after.metrics["progress/answered"]) == (before.name, REQUESTS)
        assert f"{TASK}/{SCORE}.last-number" in after.metrics

    def test_a_second_run_is_another(self, tmp_path: Path) -> None:
        """It joins the project, though its folder has the same name."""
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            evalkit(tmp_path / name, "--limit", "2", **{self.variable: "1"}, **self.store(tmp_path))
        assert len(self.seen(tmp_path, "evalkit")) == 2

    def test_nothing_is_logged_unasked(self, tmp_path: Path) -> None:
        """Without its variable the run leaves its folder and nothing else."""
        done = evalkit(tmp_path, "--limit", "2", **self.store(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_a_tracker_that_fails_loses_no_run(self, tmp_path: Path) -> None:
        """The run ends well, and one line says that it is not logged."""
        done = evalkit(tmp_path, "--limit", "2", **{self.variable: "1"}, **self.broken)
        assert done.returncode == 0, done.stderr
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("warning: "))
        assert line.startswith(f"warning: {self.variable} is set, but this run is not logged (")
        assert results(tmp_path)
        assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["status"] == "finished"


def evalkit(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Evaluate into `folder`/run with these environment variables."""
    return _process(folder, *WORDS, *words, **variables)


def results(folder: Path) -> dict[str, float]:
    """The task's row of results.json."""
    document = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
    row: dict[str, float] = document["results"][TASK]
    return row


def _process(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, *words], _clean(variables)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)


def _clean(variables: dict[str, str]) -> dict[str, str]:
    """The environment with `variables` and without evalkit's own."""
    return {**{key: value for key, value in os.environ.items() if not key.startswith("EVALKIT_")}, **variables}
