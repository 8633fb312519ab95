"""A server that is killed comes back with its jobs; each of them ends once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from evalkit.testing.waiting import eventually
from evalkit_http.client import EvalClient

KILLS = int(os.environ.get("HTTP_TEST_KILLS", "3"))
JOBS = int(os.environ.get("HTTP_TEST_JOBS", "5"))
"""The full size, 20 and 50, takes minutes."""
FAKE = {"model": "evalkit.testing.fake:Fake", "tasks": ["starter_arithmetic"]}
WAIT = 900.0
Spawn = Callable[..., Any]


def job(delay: float, limit: int = 20) -> dict[str, Any]:
    return {**FAKE, "model_args": {"pretrained": "any", "delay": delay}, "limit": limit}


def of_jobs(folder: Path) -> list[psutil.Process]:
    """Processes of jobs below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EVALKIT_JOB_FOLDER", "").startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def answers(folder: Path) -> dict[str, str]:
    """The answers in a run's journal."""
    with closing(sqlite3.connect(folder / "run" / "journal.sqlite")) as db:
        return dict(db.execute("SELECT key, output FROM outputs").fetchall())


def test_kills_lose_and_double_no_job(spawn: Spawn, tmp_path: Path) -> None:
    """SIGKILL at random moments, with jobs waiting and running: each accepted one ends once, with all its answers."""
    chance = random.Random(time.time_ns())
    server = spawn("--slots", "2")
    port = int(server.url.rpartition(":")[2])
    ids: set[str] = set()
    with EvalClient(server.url, patience=60) as client:
        for kill in range(KILLS):
            for _ in range(JOBS // KILLS + (kill < JOBS % KILLS)):
                ids.add(client.evaluate(**job(0.1))["job_id"])
            time.sleep(chance.uniform(0.05, 4))
            server.kill()
            server = spawn("--slots", "2", port=port)
        assert len(ids) == JOBS
        jobs = {id: client.wait_for_job(id, poll_interval=0.5, timeout=WAIT) for id in ids}
    assert {found["status"] for found in jobs.values()} == {"completed"}
    assert len({str(found["result"]["results"]) for found in jobs.values()}) == 1
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as db:
        ends = db.execute("SELECT job, COUNT(*) FROM moves WHERE status NOT IN ('queued', 'running') GROUP BY job")
        assert dict(ends.fetchall()) == dict.fromkeys(ids, 1)
    for id in ids:
        assert len(answers(tmp_path / "state" / "jobs" / f"evalkit_{id}")) == 20


def test_a_job_goes_on_from_its_journal(spawn: Spawn, tmp_path: Path) -> None:
    """What was answered before the kill is not asked again, and no process of the first server lives on."""
    server = spawn()
    with EvalClient(server.url) as client:
        id = client.evaluate(**job(0.3))["job_id"]
        eventually(lambda: (client.get_job(id)["progress"] or {}).get("answered", 0) >= 3)
    children = of_jobs(tmp_path / "state")
    assert children
    server.kill()
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)
    folder = tmp_path / "state" / "jobs" / f"evalkit_{id}"
    before = answers(folder)
    with EvalClient(spawn().url) as client:
        done = client.wait_for_job(id, poll_interval=0.2, timeout=WAIT)
    assert (done["status"], done["attempts"]) == ("completed", 2)
    assert before.items() <= answers(folder).items()
    # A greedy answer is made once: what is requested twice was asked twice.
    assert len(answers(folder)) == 20


def test_a_server_that_is_stopped_in_order_continues_too(spawn: Spawn, tmp_path: Path) -> None:
    """SIGTERM to the server and to its job, as a service manager may send it: the job has not failed, it goes on."""
    server = spawn()
    with EvalClient(server.url) as client:
        id = client.evaluate(**job(0.3))["job_id"]
        eventually(lambda: (client.get_job(id)["progress"] or {}).get("answered"))
    for process in of_jobs(tmp_path / "state"):
        process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) in (0, -signal.SIGTERM)
    assert not of_jobs(tmp_path / "state")
    with EvalClient(spawn().url) as client:
        assert client.wait_for_job(id, poll_interval=0.2, timeout=WAIT)["status"] == "completed"


def test_one_server_to_a_folder(spawn: Spawn, tmp_path: Path) -> None:
    """A second server on the same jobs is refused in one line."""
    spawn()
    second = spawn()
    assert second.process.wait(30) == 2
    said = (tmp_path / "server-1.txt").read_text()
    assert "another server uses" in said
    assert "Traceback" not in said
