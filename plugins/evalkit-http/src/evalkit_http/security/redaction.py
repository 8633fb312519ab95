"""Keep secrets out of logs and errors: the server's tokens, and what looks like somebody's key."""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Callable
from typing import Any

from evalkit.engine import REDACTED, SECRET_SHAPE, SHORTEST_PART, SHORTEST_SECRET, redact
from evalkit_http.security.tokens import Tokens

WORD = re.compile(r"[^\s\"'=&?,;<>(){}\[\]]{8,}")
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+\S+")
LOGGERS = re.compile(r"(uvicorn|asyncio|evalkit\w*)(\.|$)")
RecordFactory = Callable[..., logging.LogRecord]


class Cleaner:
    """Replaces secrets in text: tokens, which it knows by their hashes, secrets of the environment, shapes of keys."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        # Looked up once: a log line has ten words, and a job's log a hundred thousand.
        values = os.environ.items()
        self._secrets = {
            value for name, value in values if len(value) >= SHORTEST_SECRET and redact(value, name) == REDACTED
        }
        self._parts = [secret for secret in self._secrets if len(secret) >= SHORTEST_PART]

    def text(self, text: str) -> str:
        """`text` with each secret word replaced."""
        return WORD.sub(self._word, BEARER.sub(rf"\1 {REDACTED}", text))

    def _word(self, match: re.Match[str]) -> str:
        word = match.group()
        return REDACTED if self._is_secret(word) else word

    def _is_secret(self, word: str) -> bool:
        if word in self._secrets or SECRET_SHAPE.fullmatch(word):
            return True
        return any(part in word for part in self._parts) or self.tokens.holds(word)


class CleanRecords:
    """Makes log records that hold no secrets, of the servers and of all below them.

    A filter of a logger sees no record of the loggers below it, and handlers come and go: records are made once.
    """

    def __init__(self, make: RecordFactory, cleaner: Cleaner) -> None:
        self.make = make
        self.cleaner = cleaner

    def __call__(self, *given: Any, **more: Any) -> logging.LogRecord:
        """A record; its message, arguments and traceback are clean."""
        record = self.make(*given, **more)
        if LOGGERS.match(record.name):
            self._clean(record)
        return record

    def _clean(self, record: logging.LogRecord) -> None:
        # Arguments stay arguments: uvicorn's own formatter takes them apart.
        record.msg = self._value(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._value, record.args))
        elif record.args:
            record.args = {name: self._value(value) for name, value in record.args.items()}
        if record.exc_info and record.exc_info[0]:
            record.exc_text = self.cleaner.text("".join(traceback.format_exception(*record.exc_info)).rstrip())

    def _value(self, value: Any) -> Any:
        """`value`, or clean text in place of what would be written with a secret in it: an exception, say."""
        if value is None or isinstance(value, (int, float)):
            return value
        text = str(value)
        cleaned = self.cleaner.text(text)
        return value if cleaned == text else cleaned


def redact_logs(cleaner: Cleaner) -> None:
    """Clean what the servers log from now on; replaces the cleaner of an earlier server in this process."""
    make = logging.getLogRecordFactory()
    if isinstance(make, CleanRecords):
        make.cleaner = cleaner
    else:
        logging.setLogRecordFactory(CleanRecords(make, cleaner))
