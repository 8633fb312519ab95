"""A session whose model is in another process: one that dies is replaced, and what it did not answer is asked again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from evalkit.engine import ContinuousSession
from evalkit.errors import EngineDiedError
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)

T = TypeVar("T")


class RestartingSession(ContinuousSession):
    """The calls over a process that may die, which is an EngineDiedError; it is replaced up to `restarts` times."""

    restarts: int

    @abstractmethod
    def _begin(self) -> None:
        """Start the process and load the model there. Raises EngineDiedError, and what the engine itself raises."""

    @abstractmethod
    def _end(self) -> None:
        """End the process, where there is one."""

    @abstractmethod
    def _answers(self, name: str, requests: Mapping[int, Request], batch_size: int | None) -> Iterator[tuple[int, Any]]:
        """What the process's session answers to the continuous call `name`. Raises EngineDiedError."""

    def _again(self, error: EngineDiedError) -> None:
        """A new process in the place of one that died. Raises the last error where there were enough."""
        while True:
            self._end()
            if self.restarts <= 0:
                raise error
            self.restarts -= 1
            try:
                self._begin()
                return
            except EngineDiedError as again:
                error = again

    def _asked(self, ask: Callable[[], T]) -> T:
        """What `ask` finds, if need be from the next process."""
        while True:
            try:
                return ask()
            except EngineDiedError as error:
                self._again(error)

    def _stream(self, name: str, requests: Iterable[tuple[Any, Request]], batch_size: int | None) -> Iterator[Any]:
        """Outputs under their keys as they are made."""
        left = dict(enumerate(requests))
        while left:
            try:
                asked = {number: request for number, (_, request) in left.items()}
                for number, output in self._answers(name, asked, batch_size):
                    key, _ = left.pop(number)
                    yield key, output
                assert not left, f"{name} left requests unanswered"
            except EngineDiedError as error:
                self._again(error)

    def generate_continuous(
        self, requests: Iterable[tuple[Any, GenerationRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, GenerationOutput]]:
        """Yield `(request_id, output)` in order of completion."""
        return self._stream("generate_continuous", requests, batch_size)

    def loglikelihood_continuous(
        self, requests: Iterable[tuple[Any, LoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, LoglikelihoodOutput]]:
        """Yield `(request_id, output)` as scores arrive."""
        return self._stream("loglikelihood_continuous", requests, batch_size)

    def loglikelihood_rolling_continuous(
        self, requests: Iterable[tuple[Any, RollingLoglikelihoodRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, RollingLoglikelihoodOutput]]:
        """Yield `(request_id, output)` as texts are scored."""
        return self._stream("loglikelihood_rolling_continuous", requests, batch_size)
