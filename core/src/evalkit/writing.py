"""One text that a library writes, told by replies that each hold all tokens so far: what is new, and its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.prompts import Answer, Decode, Written
from evalkit.requests import FinishReason, TokenLogprob
from evalkit.scoring.stops import StopWatch


@dataclass(frozen=True, slots=True)
class Progress:
    """What a reply says: all tokens so far, why they end if they do, and why there will be no more if it gave up.

    `prompt` is how many tokens of the prompt went through the model.
    """

    ids: Sequence[int]
    finish: FinishReason | None = None
    prompt: int = 0
    problem: str | None = None


class Writing(ABC):
    """One sample of a request; `spell` gives the text of tokens, special ones included.

    `stops` are those that evalkit looks for itself, where a library would find others, or too early.
    """

    def __init__(
        self, work: Decode, sample: int, spell: Callable[[Sequence[int]], str], *, stops: Sequence[str] = ()
    ) -> None:
        self.request, self.prompt, self.sample, self.spell = work.item.request, work.item.prompt, sample, spell
        self.is_finished = False
        self._told = 0
        self._watch = StopWatch(stops, spell)
        self.in_parts = work.parts or bool(self._watch.stops)
        """Whether replies are wanted before the text is complete."""

    @abstractmethod
    def read(self, reply: Any) -> Progress:
        """What a reply says."""

    @abstractmethod
    def logprobs(self, reply: Any, first: int, last: int) -> tuple[TokenLogprob, ...]:
        """Of the written tokens `first` to `last`, where the request wants them."""

    def take(self, reply: Any) -> Iterator[Answer]:
        """What is new in a reply."""
        progress = self.read(reply)
        if progress.problem is not None:
            self.is_finished = True
            yield progress.problem
            return
        end, finish = self._end(progress)
        if end == self._told and finish is None:
            return
        self.is_finished = finish is not None
        logprobs = None if self.request.logprobs is None else self.logprobs(reply, self._told, end)
        # A text's last token is not fed.
        computed = progress.prompt + end - 1 if self.is_finished else 0
        new, self._told = tuple(progress.ids[self._told : end]), end
        yield Written(new, finish, logprobs, self.sample, computed)

    def _end(self, progress: Progress) -> tuple[int, FinishReason | None]:
        """How many tokens belong to the text, and why it ends."""
        for place in range(self._told, len(progress.ids)):
            if self._watch.push(progress.ids[place]) and place + 1 >= self.request.min_new_tokens:
                return place + 1, "stop"
        return len(progress.ids), progress.finish
