"""How far a run is, told to plugins every few seconds at most."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.plugins import get_plugins

if TYPE_CHECKING:
    from evalkit.engine import BaseInferenceSession
    from evalkit.requests import Output, TokenCounts
    from evalkit.runs.context import RunContext

SECONDS = 5.0
"""At least so much time lies between two calls of the hook `run_progressed`, the last one excepted."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """`answered` of `total` requests have an answer, earlier attempts' and the answer cache's among them.

    `failed`, `seconds` and `tokens` are this attempt's; `tokens` is None where the engine does not count.
    """

    answered: int
    total: int
    failed: int
    seconds: float
    tokens: TokenCounts | None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens that went through the model, a second."""
        return self.tokens.computed / self.seconds if self.tokens is not None and self.seconds > 0 else None


class ProgressReporter:
    """Is told of each answer and calls the hook by the clock."""

    def __init__(self, run: RunContext, session: BaseInferenceSession, total: int) -> None:
        self.run, self.session, self.total = run, session, total
        self.failed = 0
        self._started = self._told = time.monotonic()

    def __call__(self, answered: int, output: Output) -> None:
        """`answered` requests have an answer; `output` is the newest."""
        self.failed += output.error is not None
        now = time.monotonic()
        if now - self._told < SECONDS and answered < self.total:
            return
        self._told = now
        seconds = now - self._started
        progress = RunProgress(answered, self.total, self.failed, seconds, self.session.token_counts())
        get_plugins().hook.run_progressed(run=self.run, progress=progress)


def progress_reporter(run: RunContext, session: BaseInferenceSession, total: int) -> ProgressReporter | None:
    """What inference calls for each answer; None where no plugin listens."""
    listens = bool(get_plugins().hook.run_progressed.get_hookimpls())
    return ProgressReporter(run, session, total) if listens else None
