"""The jobs in one SQLite file: what was accepted is there after any crash, and each job ends once.

The database itself refuses to move a job out of a final state, and writes down every move.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, RunError
from evalkit_http.service.job import Accepted, Job, job_of
from evalkit_http.service.protocol import JobStatus
from evalkit_http.service.schema import ADDED, NEED, SCHEMA

QUEUED, RUNNING = JobStatus.QUEUED, JobStatus.RUNNING
FINAL = tuple(status for status in JobStatus if status.is_final)
LARGEST_LOG = 16 * 2**20


class DuplicateKeyError(ConfigError):
    """An idempotency key that came with another request before."""


class QueueFullError(RunError):
    """More jobs wait than the server keeps."""


class JobStore:
    """Jobs by id. May be used by several threads of one process."""

    def __init__(self, path: Path) -> None:
        self._lock, self._read_lock, self._sync_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._log = path.with_name(f"{path.name}-wal")
        self._db = _connect(path)
        self._db.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing so. Waiting for the disk would cost each submission up to 40 ms; `sync` does.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint = 0")
        self._db.executescript(SCHEMA)
        present = {row["name"] for row in self._db.execute("PRAGMA table_info (jobs)").fetchall()}
        for column in ADDED:
            if column not in present:
                self._db.execute(f"ALTER TABLE jobs ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
        # Readers never wait for a writer, nor anybody for the disk.
        self._reader, self._syncer = _connect(path), _connect(path)

    def close(self) -> None:
        """Close the file; may be called more than once."""
        with self._lock, self._read_lock, self._sync_lock:
            self._syncer.close()
            self._reader.close()
            self._db.close()

    def sync(self) -> None:
        """Bring everything to the disk, so that it is there after the power failed, too; others go on meanwhile."""
        with self._sync_lock, suppress(FileNotFoundError):
            log = os.open(self._log, os.O_RDONLY)
            try:
                os.fsync(log)
                size = os.fstat(log).st_size
            finally:
                os.close(log)
            # The first writer behind a checkpoint waits for the disk: so not each time.
            if size > LARGEST_LOG:
                self._syncer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def accept(self, new: Accepted, *, most: int = 2**62) -> tuple[Job, bool]:
        """Store a job; and whether it is new: a key that came before leads to its job.

        Raises DuplicateKeyError where the key came with another request, QueueFullError where `most` jobs wait.
        """
        request = json.dumps(new.request, sort_keys=True)
        with self._transaction():
            if new.key is not None and (row := self._row("key = ?", new.key)) is not None:
                if row["request"] != request or row["kind"] != new.kind:
                    raise DuplicateKeyError(f"idempotency key {new.key!r} came with another request. Use a new key")
                return job_of(row), False
            if self._queued() >= most:
                raise QueueFullError(f"{most} jobs wait already. Try again later")
            fields = (secrets.token_hex(8), new.kind, new.priority, request, json.dumps(new.work), time.time(), new.key)
            self._db.execute(
                "INSERT INTO jobs (id, kind, priority, request, work, created, key) VALUES (?, ?, ?, ?, ?, ?, ?)",
                fields,
            )
            return job_of(self._row("id = ?", fields[0])), True

    def find(self, id: str) -> Job | None:
        """The job with this id."""
        rows = self._read("SELECT * FROM jobs WHERE id = ?", id)
        return job_of(rows[0]) if rows else None

    def position(self, job: Job) -> int | None:
        """How many jobs are before a queued one."""
        if job.status != QUEUED:
            return None
        more_urgent = "SELECT COUNT(*) FROM jobs WHERE status = 'queued' AND priority > ?"
        older = "SELECT COUNT(*) FROM jobs WHERE status = 'queued' AND priority = ? AND number < ?"
        values = (job.priority, job.priority, job.number)
        return int(self._read(f"SELECT ({more_urgent}) + ({older})", *values)[0][0])

    def ids(self, status: JobStatus) -> list[str]:
        """Ids of the jobs with a status, in the order of their turn."""
        rows = self._read("SELECT id FROM jobs WHERE status = ? ORDER BY priority DESC, number", status)
        return [row["id"] for row in rows]

    def queued(self) -> int:
        """How many jobs wait."""
        return self.counts()[QUEUED]

    def counts(self) -> dict[str, int]:
        """How many jobs there are by status."""
        rows = self._read("SELECT status, jobs FROM tally")
        return {**dict.fromkeys(map(str, JobStatus), 0), **{row["status"]: row["jobs"] for row in rows}}

    def ended(self) -> dict[str, int]:
        """How many jobs ever ended so, those that are forgotten included."""
        rows = self._read("SELECT status, jobs FROM ended")
        return {**dict.fromkeys(map(str, FINAL), 0), **{row["status"]: row["jobs"] for row in rows}}

    def recent(self, most: int, status: JobStatus | None = None) -> list[Job]:
        """The youngest jobs, youngest first."""
        where, values = ("WHERE status = ?", (status,)) if status else ("", ())
        return [
            job_of(row) for row in self._read(f"SELECT * FROM jobs {where} ORDER BY number DESC LIMIT ?", *values, most)
        ]

    def candidates(self, now: float, most: int) -> list[Job]:
        """Queued jobs that may start, in the order of their turn: of each need for slots the first `most`.

        Those behind them want the same slots, so that it costs little to ask however many jobs wait.
        """
        query = (
            f"SELECT * FROM jobs INDEXED BY by_need WHERE status = 'queued' AND {NEED} IS ? AND not_before <= ? "
            "ORDER BY priority DESC, number LIMIT ?"
        )
        found = [job_of(row) for need in self._needs() for row in self._read(query, need, now, most)]
        return sorted(found, key=lambda job: (-job.priority, job.number))

    def _needs(self) -> Iterator[str | None]:
        """What queued jobs need, each once, None for those that say nothing."""
        yield None
        # From one to the next in the index: DISTINCT would look at every job.
        query = (
            f"SELECT {NEED} FROM jobs INDEXED BY by_need WHERE status = 'queued' AND {NEED} > ? ORDER BY {NEED} LIMIT 1"
        )
        need = ""
        while rows := self._read(query, need):
            need = rows[0][0]
            yield need

    def start(self, id: str, devices: tuple[str, ...]) -> bool:
        """Move a queued job to running; False where it was cancelled meanwhile."""
        return self._change(
            "status = 'running', started = COALESCE(started, ?), attempts = attempts + 1, devices = ?, reason = NULL",
            (time.time(), json.dumps(devices)),
            id,
            "status = 'queued'",
        )

    def put_off(self, id: str, until: float, reason: str) -> bool:
        """Let a queued job wait, and say why; False where it is not queued."""
        return self._change("not_before = ?, reason = ?", (until, reason), id, "status = 'queued'")

    def requeue(self, id: str, reason: str, crashed_at: int | None = None) -> bool:
        """Move a running job back into the queue, at its old place.

        `crashed_at`: how many answers it had when its server crashed; one that got further is not held guilty of it.
        """
        fields, values = "status = 'queued', devices = '[]', not_before = 0, reason = ?", list[Any]([reason])
        if crashed_at is not None:
            fields += ", crashes = CASE WHEN ? > answered THEN 1 ELSE crashes + 1 END, answered = MAX(answered, ?)"
            values += [crashed_at, crashed_at]
        return self._change(fields, tuple(values), id, "status = 'running'")

    def finish(
        self, id: str, status: JobStatus, *, result: dict[str, Any] | None = None, error: str | None = None
    ) -> bool:
        """Move a job to a final status; False where it has one."""
        now = time.time()
        text = None if result is None else json.dumps(result)
        return self._change(
            "status = ?, completed = ?, result = ?, error = ?, devices = '[]', reason = NULL, "
            "webhook_due = CASE WHEN json_extract(work, '$.webhook') IS NULL THEN NULL ELSE ? END",
            (status, now, text, error, now),
            id,
            "status IN ('queued', 'running')",
        )

    def cancel(self, id: str) -> JobStatus | None:
        """Cancel a queued job, or mark a running one to be stopped; its status after that, None where there is none."""
        with self._transaction():
            row = self._row("id = ?", id)
            if row is None:
                return None
            if row["status"] == QUEUED:
                fields = "status = 'cancelled', cancelled = 1, completed = ?, reason = NULL"
                hook = "webhook_due = CASE WHEN json_extract(work, '$.webhook') IS NULL THEN NULL ELSE ? END"
                now = time.time()
                self._db.execute(f"UPDATE jobs SET {fields}, {hook} WHERE id = ?", (now, now, id))
                return JobStatus.CANCELLED
            if row["status"] == RUNNING:
                self._db.execute("UPDATE jobs SET cancelled = 1 WHERE id = ?", (id,))
            return JobStatus(row["status"])

    def moves(self, id: str) -> list[tuple[str, float]]:
        """Every status that a job had, and since when."""
        rows = self._read("SELECT status, time FROM moves WHERE job = ? ORDER BY number", id)
        return [(row["status"], row["time"]) for row in rows]

    def webhooks(self, now: float, most: int) -> list[Job]:
        """Ended jobs of which somebody is still to be told."""
        query = "SELECT * FROM jobs WHERE webhook_due <= ? ORDER BY webhook_due LIMIT ?"
        return [job_of(row) for row in self._read(query, now, most)]

    def tell_again(self, id: str, due: float | None) -> None:
        """Count an attempt at telling; None: it was the last."""
        self._change("webhook_due = ?, webhook_tries = webhook_tries + 1", (due,), id, "TRUE")

    def expired(self, keep: int, before: float) -> list[Job]:
        """Ended jobs behind the youngest `keep`, and those that ended `before`; nobody is still to be told of them."""
        query = (
            "SELECT * FROM jobs WHERE completed IS NOT NULL AND webhook_due IS NULL AND (completed < ? "
            "OR number IN (SELECT number FROM jobs WHERE completed IS NOT NULL "
            "ORDER BY completed DESC LIMIT -1 OFFSET ?))"
        )
        return [job_of(row) for row in self._read(query, before, keep)]

    def forget(self, id: str) -> None:
        """Delete an ended job."""
        with self._transaction():
            self._db.execute("DELETE FROM jobs WHERE id = ? AND completed IS NOT NULL", (id,))
            self._db.execute("DELETE FROM moves WHERE job = ?", (id,))

    def _read(self, query: str, *values: Any) -> list[Any]:
        with self._read_lock:
            return self._reader.execute(query, values).fetchall()

    def _queued(self) -> int:
        row = self._db.execute("SELECT jobs FROM tally WHERE status = 'queued'").fetchone()
        return row["jobs"] if row else 0

    def _row(self, where: str, value: str) -> Any:
        return self._db.execute(f"SELECT * FROM jobs WHERE {where}", (value,)).fetchone()

    def _change(self, fields: str, values: tuple[Any, ...], id: str, where: str) -> bool:
        with self._lock:
            done = self._db.execute(f"UPDATE jobs SET {fields} WHERE id = ? AND {where}", (*values, id))
            return done.rowcount == 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    return db
