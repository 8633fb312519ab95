"""A tracker learns all numbers of a run and no secret, is asked only where it is switched on, and loses no run."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.runner import resume
from evalkit.runs import progress, trackers

if TYPE_CHECKING:
    from conftest import Toy

SOURCE = """
from evalkit.runs.trackers import Tracking

STARTED, PROGRESS, FINISHED = [], [], []
ERRORS = {}
HOLD = []

class Tracker:
    def start(self, run):
        STARTED.append(run)
        if HOLD:
            HOLD[0].wait(60)
        if "start" in ERRORS:
            raise ERRORS["start"]

    def progress(self, metrics, answered):
        PROGRESS.append(metrics)
        if "progress" in ERRORS:
            raise ERRORS["progress"]

    def finish(self, result):
        FINISHED.append((result, [file.is_file() for file in result.files]))
        if "finish" in ERRORS:
            raise ERRORS["finish"]

tracking = Tracking("EVALKIT_LOGBOOK", "plugin_logbook:Tracker")
run_started = tracking.run_started
run_progressed = tracking.run_progressed
run_finished = tracking.run_finished
"""
REQUESTS = 4 * 3 + 4 + 4 + 4


@pytest.fixture
def logbook(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tracker's plugin, switched on, that keeps what it is told and raises what is in ERRORS."""
    toy.site.plugin("logbook", SOURCE)
    monkeypatch.setenv("EVALKIT_LOGBOOK", "1")
    from evalkit.plugins import get_plugins

    get_plugins()
    return sys.modules["plugin_logbook"]


@pytest.mark.parametrize(
    ("value", "project"), [("1", "evalkit"), ("true", "evalkit"), ("mine", "mine"), ("0", None), ("", None)]
)
def test_the_variable_switches_on_and_names_the_project(
    toy: Toy, logbook: Any, monkeypatch: pytest.MonkeyPatch, value: str, project: str | None
) -> None:
    """Nothing is logged unasked."""
    monkeypatch.setenv("EVALKIT_LOGBOOK", value)
    toy.run("toy_target")
    assert [run.project for run in logbook.STARTED] == ([] if project is None else [project])
    assert len(logbook.FINISHED) == len(logbook.STARTED)


def test_all_numbers_are_told(toy: Toy, logbook: Any) -> None:
    """Every metric with its error, tokens, seconds and failures; results.json is there to be attached."""
    result = toy.run(limit=3)
    ((tracked, files),) = logbook.FINISHED
    assert files == [True]
    assert logbook.STARTED[0].name == Path(result.run_dir).name
    assert tracked.metrics["toy_choice/acc"] == result.results["toy_choice"]["acc,none"]
    assert (
        tracked.metrics["toy_text/exact_match_stderr.small"] == result.results["toy_text"]["exact_match_stderr,small"]
    )
    assert result.tokens is not None
    assert tracked.metrics["tokens/unique"] == result.tokens.unique
    assert {"seconds/load", "seconds/inference", "seconds/total", "errors", "toy/acc"} <= set(tracked.metrics)
    assert logbook.STARTED[0].started <= tracked.ended


def test_parameters_say_what_was_asked_and_hold_no_secret(toy: Toy, logbook: Any) -> None:
    """Specification, engine, fingerprint and the prompts' hash, all of them plain values."""
    model = toy.path / "model.bin"
    model.write_bytes(b"weights")
    toy.run("toy_target", limit=3, engine_args={"api_key": "sesame"}, model=str(model))
    parameters = logbook.STARTED[0].parameters
    assert parameters["tasks"] == "toy_target"
    assert (parameters["limit"], parameters["engine_args.api_key"]) == (3, "***")
    assert len(parameters["model.fingerprint"]) == len(parameters["prompts"]) == 64
    assert parameters["engine.class"] == "Breakable"
    assert "sesame" not in json.dumps(parameters)


def test_progress_is_told_by_the_clock(toy: Toy, logbook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick run says once that all is there; by a quicker clock it never goes back, and failures are counted."""
    toy.run()
    (last,) = logbook.PROGRESS
    assert (last["progress/answered"], last["progress/total"], last["progress/failed"]) == (REQUESTS, REQUESTS, 0)
    assert last["progress/tokens"] > 0
    assert last["progress/tokens_per_second"] > 0
    logbook.PROGRESS.clear()
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    toy.tape.fails_on = "1 + 1?"
    toy.run()
    answered = [metrics["progress/answered"] for metrics in logbook.PROGRESS]
    assert answered == sorted(set(answered))
    assert answered[-1] == REQUESTS
    assert logbook.PROGRESS[-1]["progress/failed"] == 5


def test_a_resumed_run_is_the_same_one(toy: Toy, logbook: Any, tmp_path: Path) -> None:
    """It has the id that it had when it was stopped; another run in a folder of that name has another."""
    toy.tape.crash_after = 5
    with pytest.raises(RuntimeError):
        toy.run(output=str(tmp_path / "a" / "run"))
    toy.tape.crash_after = None
    assert logbook.FINISHED == []
    resume(tmp_path / "a" / "run")
    toy.run(output=str(tmp_path / "b" / "run"))
    first, again, other = logbook.STARTED
    assert first.id == again.id != other.id
    assert first.name == other.name == "run"
    assert len(logbook.FINISHED) == 2


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), SystemExit(3)])
@pytest.mark.parametrize("step", ["start", "progress", "finish"])
def test_a_tracker_that_fails_loses_no_run(
    toy: Toy, logbook: Any, capsys: pytest.CaptureFixture[str], step: str, error: BaseException
) -> None:
    """One line says so, unless it was only a report of progress; the run is finished and its files are whole."""
    logbook.ERRORS[step] = error
    result = toy.run("toy_target")
    lines = capsys.readouterr().err.splitlines()
    expected = f"warning: EVALKIT_LOGBOOK is set, but this run is not logged ({type(error).__name__}: "
    assert [line[: len(expected)] for line in lines] == ([] if step == "progress" else [expected])
    folder = Path(result.run_dir)
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"] == "finished"
    assert json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"] == result.results


def test_a_tracker_that_hangs_does_not_hold_up_the_run(
    toy: Toy, logbook: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All answers come without it; at the end it is waited for, and then left behind."""
    monkeypatch.setattr(trackers, "WAIT_SECONDS", 0.1)
    released = threading.Event()
    logbook.HOLD.append(released)
    result = toy.run()
    assert result.errors == 0
    assert "this run is not logged (no answer for 0 seconds)" in capsys.readouterr().err
    released.set()
