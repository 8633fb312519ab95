"""The answer cache as a run uses it: whatever goes wrong with it costs one warning, never the run."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from evalkit.answers.files import Stamp, hash_file
from evalkit.answers.identity import identity, local_files
from evalkit.answers.store import AnswerStore, Record, limit_bytes, store_path
from evalkit.encoding import KINDS, decode_output, encode_output, kind_of
from evalkit.engine import BaseEngine
from evalkit.errors import ConfigError, one_line
from evalkit.model import Model
from evalkit.requests import GenerationRequest, Output, Request

MARK = "from_cache"
"""The key of an output's metadata that says where the answer is from."""
FLUSH_COUNT, FLUSH_SECONDS = 64, 2.0
TROUBLE = (sqlite3.Error, OSError, Timeout, UnicodeDecodeError)
"""The last one: a damaged name in a message of SQLite's own."""


class AnswerCache:
    """Answers of one engine with one model. Made before the model loads, opened once it is loaded."""

    def __init__(self, engine: BaseEngine, name: str, model: Model) -> None:
        self.engine, self.name, self.model = engine, name, model
        self.warning: str | None = None
        """Why it could not be used, or not to the end."""
        self._limit = limit_bytes()
        self._scope = ""
        self._store: AnswerStore | None = None
        self._waiting: list[Record] = []
        self._flushed = time.monotonic()
        self._before = self._stamps()

    def open(self, execution: Mapping[str, Any] | None) -> None:
        """Find out what answers depend on. Raises ModelError where that cannot be known."""
        try:
            self._store = AnswerStore(store_path(), self._limit)
        except (*TROUBLE, ConfigError) as error:
            self._give_up(error)
        self._scope = identity(self.engine, self.name, self.model, execution, self._hash_file)
        if self._stamps() != self._before:
            self._stop("the model's files changed while it was loaded")

    def find(self, requests: Mapping[str, Request]) -> dict[str, Output]:
        """The answers that are there, by the request's key, marked as such."""
        if self._store is None:
            return {}
        keys = {self._key(key): key for key, request in requests.items() if is_repeatable(request)}
        try:
            records = self._store.get(list(keys))
        except TROUBLE as error:
            self._give_up(error)
            return {}
        found = {keys[r.key]: decode_output(r.kind, r.output) for r in records.values()}
        fitting = {key: output for key, output in found.items() if isinstance(output, _answer_type(requests[key]))}
        return {key: replace(output, metadata={**output.metadata, MARK: True}) for key, output in fitting.items()}

    def add(self, key: str, request: Request, output: Output) -> None:
        """Keep an answer; failures are not kept."""
        if self._store is None or output.error is not None or not is_repeatable(request):
            return
        self._waiting.append(Record(self._key(key), *encode_output(output)))
        if len(self._waiting) >= FLUSH_COUNT or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._store is not None and self._waiting:
            try:
                self._store.put(self._waiting)
            except TROUBLE as error:
                self._give_up(error)
        self._waiting = []
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what waits and close the file; may be called more than once."""
        self.flush()
        if self._store is not None:
            with suppress(*TROUBLE):
                self._store.close()
        self._store = None

    def _key(self, request_key: str) -> str:
        return hashlib.sha256(f"{self._scope}\n{request_key}".encode()).hexdigest()

    def _hash_file(self, path: Path) -> str:
        if self._store is not None:
            with suppress(*TROUBLE):
                return self._store.file_hash(path)
        return hash_file(path)

    def _stamps(self) -> list[Stamp]:
        with suppress(OSError):
            return [Stamp.of(path) for path in local_files(self.engine, self.model)]
        return []

    def _give_up(self, error: Exception) -> None:
        self._stop(f"{one_line(error)}. Look at it with: evalkit cache info")

    def _stop(self, cause: str) -> None:
        self.warning = self.warning or f"the answer cache is not used: {cause}"
        if self._store is not None:
            with suppress(*TROUBLE):
                self._store.close()
        self._store = None
        self._waiting = []


def is_repeatable(request: Request) -> bool:
    """Whether asking again gives the same: not for a sample drawn without a seed."""
    return not isinstance(request, GenerationRequest) or not request.is_sampled or request.seed is not None


def is_from_cache(output: Output) -> bool:
    """Whether an output was found in the cache."""
    return bool(output.metadata.get(MARK))


def _answer_type(request: Request) -> type[Output]:
    return KINDS[kind_of(request)]
