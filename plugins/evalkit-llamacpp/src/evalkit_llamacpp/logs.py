"""What llama.cpp says: kept for error messages, and shown where `verbose` asks for it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llama_cpp

WARN, ERROR = 3, 4
"""As ggml numbers them."""
_recent: deque[tuple[int, str]] = deque(maxlen=200)
_shown = [False]


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep(level: int, text: bytes, _: Any) -> None:
    line = text.decode(errors="replace")
    _recent.append((level, line))
    if _shown[0]:
        sys.stderr.write(line)


def install(*, verbose: bool) -> None:
    """Take over llama.cpp's log, which is one for the whole process."""
    _shown[0] = verbose
    llama_cpp.llama_log_set(_keep, None)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Within it, an empty list; behind it, the errors that came up, then the warnings."""
    found: list[str] = []
    _recent.clear()
    try:
        yield found
    finally:
        found += [line.strip() for wanted in (ERROR, WARN) for level, line in _recent if level == wanted]
