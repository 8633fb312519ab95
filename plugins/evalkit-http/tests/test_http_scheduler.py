"""The scheduler where something fails: a full disk, a folder that hangs, a folder that cannot be read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evalkit_http.service import checkpoints
from evalkit_http.service.evaluation import Evaluation
from evalkit_http.service.job import Accepted
from evalkit_http.service.jobs import JobStore
from evalkit_http.service.protocol import Progress
from evalkit_http.service.scheduler import MOST_CRASHES

FAKE = {"model": "evalkit.testing.fake:Fake", "model_args": {"pretrained": "any"}}
QUICK = {**FAKE, "tasks": ["starter_questions"], "limit": 2}
TIMES = 2
Serve = Callable[..., Any]


def failing(work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, whose first calls find the disk full."""
    calls = 0

    def fails_first(*args: Any, **fields: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= TIMES:
            raise sqlite3.OperationalError("database or disk is full")
        return work(*args, **fields)

    return fails_first


def left_running(folder: Path, crashes: int = 0, answered: int = 0) -> str:
    """A job that ran when the server was killed, which had happened before."""
    folder.mkdir()
    with closing(JobStore(folder / "jobs.sqlite")) as store:
        work = {"slots": {"count": 1, "device": None}, "spec": {}, "timeout": None, "prefix": ""}
        id = store.accept(Accepted("evaluate", {}, work))[0].id
        store.start(id, ("cpu:0",))
        for _ in range(crashes):
            store.requeue(id, "", answered)
            store.start(id, ("cpu:0",))
    return id


@pytest.mark.parametrize("step", ["start", "finish"])
def test_a_full_disk_loses_neither_slot_nor_end(serve: Serve, step: str, caplog: pytest.LogCaptureFixture) -> None:
    """A start or an end that cannot be stored is stored as soon as there is room, and the log says so once."""
    server = serve()
    store = server.service.store
    setattr(store, step, failing(getattr(store, step)))
    assert server.run(**QUICK)["status"] == "completed"
    assert server.service.slots.free == {"cpu:0"}
    told = [record for record in caplog.records if record.name == "evalkit_http" and record.exc_info]
    assert len(told) == 1


def test_a_folder_that_hangs_stops_no_other_job(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file server of one job's checkpoint does not answer: the jobs behind it run all the same."""
    ended, look = threading.Event(), checkpoints.missing

    def hangs(path: Path) -> str | None:
        if path.name == "hung":
            ended.wait(60)
            return None
        return look(path)

    monkeypatch.setattr(checkpoints, "missing", hangs)
    server = serve()
    (tmp_path / "hung").mkdir()
    hung = server.client.evaluate(**{**QUICK, "model_args": {"model": "hung"}})["job_id"]
    assert server.run(**QUICK)["status"] == "completed"
    job = server.until(hung, lambda info: info["reason"])
    assert "does not answer" in job["reason"]
    server.client.cancel_job(hung)
    ended.set()


def test_a_cancelled_job_is_not_looked_at_any_more(serve: Serve, tmp_path: Path) -> None:
    """What the server knew of its checkpoint goes with it."""
    server = serve()
    (tmp_path / "never").mkdir()
    id = server.client.evaluate(**{**QUICK, "model_args": {"model": "never"}})["job_id"]
    watch = server.service.scheduler._watch
    server.until(id, lambda info: info["reason"] and id in watch)
    server.client.cancel_job(id)
    server.until(id, lambda info: id not in watch)


def test_a_folder_that_cannot_be_read_does_not_keep_a_server_from_starting(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job's files give an error at the start: that job is run again, and says what is wrong if that stays."""
    id = left_running(tmp_path / "state")

    def unreadable(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Evaluation, "outcome", unreadable)
    job = serve().wait(id)
    assert (job["status"], job["attempts"]) == ("failed", 2)
    assert "Input/output error" in job["error"]


@pytest.mark.parametrize(("answered", "is_over"), [(3, True), (4, False)])
def test_a_job_that_takes_the_server_down_is_given_up(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: int, is_over: bool
) -> None:
    """After some crashes without a new answer it fails; one that gets further each time goes on."""
    id = left_running(tmp_path / "state", MOST_CRASHES - 1, 3)
    monkeypatch.setattr(Evaluation, "progress", lambda *args: Progress(answered=answered, total=9))
    monkeypatch.setattr(Evaluation, "words", lambda *args: ["no-such-command"])
    job = serve().wait(id)
    assert job["status"] == "failed"
    assert ("the server was killed" in job["error"]) == is_over
    assert job["attempts"] == MOST_CRASHES + (answered > 3)
