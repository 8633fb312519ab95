"""The journal: every answer, written the moment it arrives, in one SQLite file.

A record is one transaction of its own: killing the process loses nothing that was written. Each carries a
checksum, and its key is a hash of the request, so that a changed request is asked again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evalkit.encoding import KINDS, decode_output, encode_output, kind_of
from evalkit.energy import Energy
from evalkit.errors import DiskFullError, RunError, one_line
from evalkit.requests import LoglikelihoodRequest, Output, Request, TokenCounts

SCHEMA = """
CREATE TABLE IF NOT EXISTS outputs (key TEXT PRIMARY KEY, kind TEXT, output TEXT, failed INTEGER, checksum INTEGER);
CREATE TABLE IF NOT EXISTS attempts (
    number INTEGER PRIMARY KEY, requested INTEGER, unique_tokens INTEGER, computed INTEGER, load REAL, inference REAL);
CREATE TABLE IF NOT EXISTS energy (attempt INTEGER PRIMARY KEY, joules REAL, counters TEXT);
"""
COLUMNS = 5
PROBES = (
    "SELECT key, kind, output, failed, checksum FROM outputs LIMIT 0",
    "SELECT number, requested, unique_tokens, computed, load, inference FROM attempts LIMIT 0",
)
"""A damaged schema is found by them, before any answer is asked for."""

WAL_VERSIONS = b"\x02\x02"


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """Tokens, seconds of loading and of inference, and energy. None: not counted."""

    tokens: TokenCounts | None = None
    load: float = 0.0
    inference: float = 0.0
    energy: Energy | None = None


def request_key(request: Request) -> str:
    """Hash of a request's kind and every field."""
    # A scoring request is two short strings: building a dict of its fields would dominate the hashing.
    fields = [getattr(request, field.name) for field in dataclasses.fields(request)]
    if isinstance(request, LoglikelihoodRequest) and request.logprobs is None:
        # Runs from before there was this field go on.
        fields.pop()
    text = json.dumps([kind_of(request), *fields], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Outputs by request key. One writer at a time; the run folder's lock sees to that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Records that could not be read and will be asked again."""
        self.written = 0
        """Outputs written by this attempt."""
        self._db = self._open()
        with self._guard():
            self.attempt: int = self._db.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM attempts").fetchone()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def put(self, key: str, output: Output, spent: Spent | None = None) -> None:
        """Write one output, and with it what this attempt has cost so far."""
        with self._guard(), self._db:
            self._db.execute("BEGIN")
            self._db.execute("INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?)", _row(key, output))
            if spent is not None:
                self._write_spent(spent)
        self.written += 1

    def put_all(self, outputs: Mapping[str, Output]) -> None:
        """Write outputs that are all there at once, in one transaction."""
        with self._guard(), self._db:
            self._db.execute("BEGIN")
            rows = (_row(key, output) for key, output in outputs.items())
            self._db.executemany("INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?)", rows)
        self.written += len(outputs)

    def finish_attempt(self, spent: Spent) -> None:
        """Write what this attempt has cost."""
        with self._guard(), self._db:
            self._db.execute("BEGIN")
            self._write_spent(spent)

    def outputs(self) -> dict[str, Output]:
        """Every good output by key. Damaged and failed ones are left out, and so asked again."""
        found: dict[str, Output] = {}
        bad: list[int] = []
        with self._guard():
            rows = self._db.execute("SELECT rowid, key, kind, output, failed, checksum FROM outputs").fetchall()
        for rowid, key, kind, text, failed, checksum in rows:
            if checksum not in _checksums(key, kind, text, failed) or kind not in KINDS:
                bad.append(rowid)
            elif not failed:
                found[key] = decode_output(kind, text)
        self.damaged += len(bad)
        with self._guard():
            self._db.executemany("DELETE FROM outputs WHERE rowid = ?", [(rowid,) for rowid in bad])
        return found

    def __len__(self) -> int:
        with self._guard():
            count: int = self._db.execute("SELECT COUNT(*) FROM outputs WHERE NOT failed").fetchone()[0]
        return count

    def costs(self) -> Spent:
        """Over all attempts. Tokens are None where no attempt counted, energy where any did not."""
        query = "SELECT SUM(requested), SUM(unique_tokens), SUM(computed), SUM(load), SUM(inference) FROM attempts"
        with self._guard():
            requested, unique, computed, load, inference = self._db.execute(query).fetchone()
        counts = TokenCounts(requested or 0, unique or 0, computed or 0)
        return Spent(counts if counts.requested else None, load or 0.0, inference or 0.0, self._energy())

    def _energy(self) -> Energy | None:
        with self._guard():
            rows = self._db.execute(
                "SELECT joules, counters FROM attempts LEFT JOIN energy ON attempt = number ORDER BY number"
            ).fetchall()
        # A sum that lacks an attempt would look like all of it.
        if not rows or any(joules is None for joules, _ in rows):
            return None
        names = (name for _, counters in rows for name in json.loads(counters))
        return Energy(sum(joules for joules, _ in rows), tuple(dict.fromkeys(names)))

    def close(self) -> None:
        """Close the file; may be called more than once."""
        self._db.close()

    def _write_spent(self, spent: Spent) -> None:
        counts, energy = spent.tokens or TokenCounts(), spent.energy
        row = (self.attempt, counts.requested, counts.unique, counts.computed, spent.load, spent.inference)
        self._db.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?)", row)
        # A counter that failed takes back what it had said.
        self._db.execute("DELETE FROM energy WHERE attempt = ?", (self.attempt,))
        if energy is not None:
            counters = json.dumps(energy.counters)
            self._db.execute("INSERT INTO energy VALUES (?, ?, ?)", (self.attempt, energy.joules, counters))

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            if not self.path.exists() or not _is_damage(error):
                raise _as_run_error(error, self.path) from error
        except UnicodeDecodeError:
            pass  # a damaged name in a message of SQLite's own
        return self._salvage()

    def _salvage(self) -> sqlite3.Connection:
        """Move a damaged file aside and keep every record of it that can still be read."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        rows = list(_readable_rows(self.path))
        self.path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        db = _connect(self.path)
        db.executemany("INSERT OR IGNORE INTO outputs VALUES (?, ?, ?, ?, ?)", rows)
        self.damaged += 1
        return db

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _as_run_error(error, self.path) from error


def _lenient(data: bytes) -> str:
    """Damaged text must reach the checksum instead of stopping the query."""
    return data.decode("utf-8", "replace")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.text_factory = _lenient
    try:
        # WAL makes a commit one append; NORMAL survives a killed process without a disk flush for every record.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(SCHEMA)
        for query in PROBES:
            db.execute(query)
        # Not the quick check: it does not see an index that differs from its table, where later queries fail.
        verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        _check_header(path)
    except (sqlite3.Error, UnicodeDecodeError):
        db.close()
        raise
    if verdict != "ok":
        db.close()
        raise sqlite3.DatabaseError(verdict)
    return db


def _check_header(path: Path) -> None:
    """Raise DatabaseError where bytes 18 and 19 ask for another version than WAL's: SQLite would not write."""
    with path.open("rb") as file:
        if file.read(20)[18:] != WAL_VERSIONS:
            raise sqlite3.DatabaseError("the header is damaged")


def _readable_rows(path: Path) -> Iterator[tuple[Any, ...]]:
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        db = sqlite3.connect(path)
        db.text_factory = _lenient
        # By place: the names of columns may be what is damaged. The checksum tells whether a row is one.
        cursor = db.execute("SELECT * FROM outputs NOT INDEXED")
        while (row := cursor.fetchone()) is not None:
            if len(row) == COLUMNS:
                yield row


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file's content is at fault, and not its disk, its permissions or another process."""
    return not isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode == sqlite3.SQLITE_ERROR


def _as_run_error(error: sqlite3.Error, path: Path) -> RunError:
    if "full" in str(error):
        return DiskFullError(
            f"no disk space left for {path}. Everything written so far is safe: free some space, then: "
            f"evalkit resume {path.parent}"
        )
    return RunError(f"journal {path} cannot be used ({one_line(error)}). Check the disk and its permissions")


def _checksums(key: str, kind: str, text: str, failed: int) -> tuple[int, int]:
    """The checksum of a record, and the one that older versions gave it."""
    return zlib.crc32(f"{key}\n{kind}\n{failed}\n{text}".encode()), zlib.crc32(f"{key}\n{text}".encode())


def _row(key: str, output: Output) -> tuple[str, str, str, int, int]:
    kind, text = encode_output(output)
    failed = int(output.error is not None)
    return key, kind, text, failed, _checksums(key, kind, text, failed)[0]


def count_answers(path: Path) -> int:
    """Answers in a journal that another process may be writing to; 0 where it cannot be read."""
    if not path.is_file():
        return 0
    with suppress(sqlite3.Error, UnicodeDecodeError):
        # "immutable" leaves no files behind, but must not be said of a journal that is being written to.
        still = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{still}", uri=True)
        try:
            count: int = db.execute("SELECT COUNT(*) FROM outputs WHERE NOT failed").fetchone()[0]
            return count
        finally:
            db.close()
    return 0
