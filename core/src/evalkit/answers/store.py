"""One SQLite file of answers, shared by all processes of a user: short transactions, checksums, a size limit."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock

from evalkit.answers.files import Stamp, hash_file
from evalkit.cache import cache_dir
from evalkit.errors import ConfigError

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, kind TEXT, output TEXT, checksum TEXT, size INTEGER, used INTEGER);
CREATE INDEX IF NOT EXISTS answers_used ON answers (used);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, sha256 TEXT);
"""
VERSION = 1
DEFAULT_MB = 2048
BUSY_SECONDS = 60.0
PER_QUERY = 500
"""SQLite allows 999 parameters in old versions."""
TOUCH_SECONDS = 3600
"""How exactly the time of the last use is kept: reading then hardly ever writes."""
RACY_NS = 2 * 10**9
"""A file written to so shortly ago may be written to again without a new time stamp."""


@dataclass(frozen=True, slots=True)
class Record:
    """One answer as it is stored."""

    key: str
    kind: str
    output: str


@dataclass(frozen=True, slots=True)
class Info:
    """What the file holds; times in seconds since 1970, None where there is no answer."""

    path: str
    answers: int
    bytes: int
    limit: int
    oldest_use: int | None
    newest_use: int | None


def store_path() -> Path:
    """Where the answers of this user are."""
    return cache_dir() / "answers.sqlite"


def limit_bytes() -> int:
    """How large the file may become: EVALKIT_ANSWER_CACHE_MB, else 2 GiB. Raises ConfigError."""
    text = os.environ.get("EVALKIT_ANSWER_CACHE_MB") or str(DEFAULT_MB)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"EVALKIT_ANSWER_CACHE_MB is a number of MiB from 1 on, not {text!r}. Change or unset it")
    return int(text) * 2**20


class OtherVersionError(sqlite3.DatabaseError):
    """The file's format is another one than this evalkit's: it is left alone."""


class AnswerStore:
    """Answers by key. Raises sqlite3.Error and OSError: who uses it decides what they mean."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        # Twelve processes that create one file at once would meet errors that SQLite does not wait out.
        with FileLock(path.with_name(f"{path.name}.lock"), timeout=BUSY_SECONDS):
            self._db = _connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called more than once."""
        self._db.close()

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        """The whole answers to these keys. A damaged one is left out: it is asked again, and replaced by `put`."""
        found: dict[str, Record] = {}
        now = int(time.time())
        for some in _chunks(keys):
            query = f"SELECT key, kind, output, checksum, used FROM answers WHERE key IN ({_marks(some)})"
            stale = []
            for key, kind, output, checksum, used in self._db.execute(query, some).fetchall():
                if checksum_of(key, kind, output) != checksum:
                    continue
                found[key] = Record(key, kind, output)
                if not isinstance(used, int) or abs(now - used) > TOUCH_SECONDS:
                    stale.append((now, key))
            if stale:
                with self._writing():
                    self._db.executemany("UPDATE answers SET used = ? WHERE key = ?", stale)
        return found

    def put(self, records: Iterable[Record]) -> None:
        """Add or replace answers, and keep to the size limit."""
        now = int(time.time())
        rows = [(r.key, r.kind, r.output, checksum_of(r.key, r.kind, r.output), len(r.output), now) for r in records]
        with self._writing():
            self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
        if self.bytes() > self.limit:
            # A tenth more than needed: not every further answer is to prune again.
            self.prune(self.limit * 9 // 10)

    def prune(self, limit: int, before: int = 0) -> int:
        """Delete answers not used since `before`, then the least recently used ones above `limit` bytes; how many."""
        deleted = self._delete("used < ?", before)
        while self.bytes() > limit and (some := self._delete("1 OR ?", 0, PER_QUERY)):
            deleted += some
        if deleted:
            self._shrink()
        return deleted

    def clear(self) -> int:
        """Delete everything; the number of answers."""
        with self._writing():
            count = self._db.execute("DELETE FROM answers").rowcount
            self._db.execute("DELETE FROM files")
        self._shrink()
        return count

    def verify(self) -> tuple[int, int]:
        """Check every answer and delete those that are damaged: how many were whole, and how many not."""
        whole, last = 0, 0
        bad: list[int] = []
        query = "SELECT rowid, key, kind, output, checksum FROM answers WHERE rowid > ? ORDER BY rowid LIMIT ?"
        # Piece by piece: a reader that takes minutes would keep the write-ahead log of all others growing.
        while rows := self._db.execute(query, (last, PER_QUERY)).fetchall():
            for last, key, kind, output, checksum in rows:
                fits = checksum_of(key, kind, output) == checksum
                whole += fits
                bad += [] if fits else [last]
        with self._writing():
            for rowid in bad:
                self._delete_damaged(rowid)
        # Not the quick check: it does not see an index that differs from its table, where answers are not found.
        verdict = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        return whole, len(bad)

    def _delete_damaged(self, rowid: int) -> None:
        # Another process may have put a whole answer in its place by now.
        query = "SELECT key, kind, output, checksum FROM answers WHERE rowid = ?"
        row = self._db.execute(query, (rowid,)).fetchone()
        if row is not None and checksum_of(*row[:3]) != row[3]:
            self._db.execute("DELETE FROM answers WHERE rowid = ?", (rowid,))

    def info(self) -> Info:
        """What the file holds."""
        count, oldest, newest = self._db.execute("SELECT COUNT(*), MIN(used), MAX(used) FROM answers").fetchone()
        return Info(str(self.path), count, self.bytes(), self.limit, oldest, newest)

    def bytes(self) -> int:
        """Bytes in use; pages that are free are used again."""
        size, pages, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
        return int(size * (pages - free))

    def file_hash(self, path: Path) -> str:
        """SHA-256 of a file's bytes, remembered for as long as its stamp stays the same."""
        stamp = Stamp.of(path)
        row = (stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode)
        query = "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ?"
        known = self._db.execute(query, (stamp.path, *row)).fetchone()
        if known is not None:
            return str(known[0])
        started = time.time_ns()
        found = hash_file(path)
        if Stamp.of(path) == stamp and started - max(stamp.mtime_ns, stamp.ctime_ns) > RACY_NS:
            with self._writing():
                self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", (stamp.path, *row, found))
        return found

    def _delete(self, condition: str, value: int, count: int = -1) -> int:
        chosen = f"SELECT rowid FROM answers WHERE {condition} ORDER BY used LIMIT ?"
        with self._writing():
            return self._db.execute(f"DELETE FROM answers WHERE rowid IN ({chosen})", (value, count)).rowcount

    def _shrink(self) -> None:
        self._db.execute("PRAGMA incremental_vacuum").fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that is a writer from its start: one that becomes a writer later can be refused at once."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def checksum_of(key: Any, kind: Any, output: Any) -> str:
    """What guards a record against flipped bits."""
    return hashlib.blake2b(f"{key}\n{kind}\n{output}".encode(errors="replace"), digest_size=16).hexdigest()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    # Damaged text must reach the checksum instead of stopping the query.
    db.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
            raise OtherVersionError("it was made by another version of evalkit")
        # Before the first table: free pages can then be given back.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        # A power failure may cost the last answers, never the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {16 * 2**20}")
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version = {VERSION}")
    except UnicodeDecodeError as error:
        db.close()
        raise sqlite3.DatabaseError("its schema is damaged") from error
    except sqlite3.Error:
        db.close()
        raise
    return db


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[at : at + PER_QUERY] for at in range(0, len(keys), PER_QUERY))


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
