"""Keep secrets out of logs and errors: the server's tokens, and what looks like somebody's key."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

from evalkit.engine import REDACTED, redact
from evalkit_http.security.tokens import Tokens

WORD = re.compile(r"[^\s\"'=&?,;<>(){}\[\]]+")
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+\S+")
LOGGERS = ("uvicorn.access", "uvicorn.error", "evalkit_http")


class Cleaner:
    """Replaces secrets in text; knows the tokens by their hashes."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def text(self, text: str) -> str:
        """`text` with each secret word replaced."""
        return WORD.sub(self._word, BEARER.sub(rf"\1 {REDACTED}", text))

    def _word(self, match: re.Match[str]) -> str:
        word = match.group()
        secret = self.tokens.holds(word) or redact(word) == REDACTED
        return REDACTED if secret else word


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
