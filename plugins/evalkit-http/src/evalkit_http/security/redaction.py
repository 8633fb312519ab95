"""Keep secrets out of logs and errors: the server's tokens, and what looks like somebody's key."""

from __future__ import annotations

import logging
import os
import re
import traceback
from typing import Any

from evalkit.engine import REDACTED, SECRET_SHAPE, SHORTEST_PART, SHORTEST_SECRET, redact
from evalkit_http.security.tokens import Tokens

WORD = re.compile(r"[^\s\"'=&?,;<>(){}\[\]]{8,}")
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+\S+")
LOGGERS = ("uvicorn.access", "uvicorn.error", "evalkit_http")


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


class RedactingFilter(logging.Filter):
    """Cleans each record, its arguments and its traceback."""

    def __init__(self, cleaner: Cleaner) -> None:
        super().__init__()
        self.cleaner = cleaner

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record in place; it is always kept."""
        # Arguments stay arguments: uvicorn's own formatter takes them apart.
        record.msg = self._value(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._value, record.args))
        if record.exc_info and record.exc_info[0]:
            record.exc_text = self.cleaner.text("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True

    def _value(self, value: Any) -> Any:
        return self.cleaner.text(value) if isinstance(value, str) else value


def redact_logs(cleaner: Cleaner) -> None:
    """Clean what the servers log from now on; replaces the cleaner of an earlier server in this process."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in [item for item in logger.filters if isinstance(item, RedactingFilter)]:
            logger.removeFilter(old)
        logger.addFilter(RedactingFilter(cleaner))
