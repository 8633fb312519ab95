"""PumpedSession: a PromptSession over a library whose calls are asynchronous, one stream of replies a request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

from evalkit.arrivals import with_notes
from evalkit.decoding import Feed, LiveAnswers
from evalkit.errors import EvalkitError, one_line
from evalkit.prompts import Answer, Decode, PromptSession, Work
from evalkit.pump import Arrival, Pump
from evalkit.requests import GenerationOutput, GenerationPart
from evalkit.scoring import Tokenizer
from evalkit.scoring.prompts import Prompt, PromptScores
from evalkit.scoring.waves import Waves
from evalkit.sessions import DecodeRequest
from evalkit.writing import Writing

SEED_STEP = 1_000_003
"""Seeds of a request's samples stand this far apart, unless a library draws them itself."""


class PumpedSession(PromptSession):
    """A session over streams of replies: a prompt has one, a text one for each part of it."""

    seed_note: str | None = None
    """What an output says whose request had a seed that did not count; None where seeds count."""
    waves: Waves | None = None
    """Holds prompts back, for a library whose cache has of a prompt only what was read before it began."""

    def __init__(self, tokenizer: Tokenizer, *, pump: Pump[Any], max_length: int, batch_tokens: int) -> None:
        super().__init__(tokenizer, max_length=max_length, batch_tokens=batch_tokens)
        self.pump = pump
        # By the number of the work, and of its sample.
        self._work: dict[tuple[int, int], Prompt | Writing] = {}
        self._held: dict[int, Prompt] = {}

    # ── primitives ──────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    def ask_prompt(self, prompt: Prompt) -> AsyncIterator[Any]:
        """The stream with a prompt's one reply. Raises RequestError for what the library cannot do."""

    @abstractmethod
    def scores_in(self, prompt: Prompt, reply: Any) -> PromptScores:
        """The scores in a reply. Raises RequestError where they are not there."""

    @abstractmethod
    def ask_texts(self, work: Decode) -> list[tuple[Writing, AsyncIterator[Any]]]:
        """For each sample of a request the text, and the stream of its replies. Raises RequestError."""

    def spell(self, ids: Sequence[int]) -> str:
        """The text of tokens. With special ones, because a stop string may be one."""
        return self.tokenizer.decode(ids, skip_special=False)

    # ── work ────────────────────────────────────────────────────────────────────────────────────────────
    def send(self, number: int, work: Work) -> None:
        """Begin to read the replies."""
        if isinstance(work, Prompt):
            if self.waves is None or self.waves.begin(number, work.ids):
                self._read((number, 0), work, self.ask_prompt(work))
            else:
                self._held[number] = work
            return
        for sample, (text, stream) in enumerate(self.ask_texts(work)):
            self._read((number, sample), text, stream)

    def _read(self, key: tuple[int, int], item: Prompt | Writing, stream: AsyncIterator[Any]) -> None:
        self._work[key] = item
        self.pump.start(key, stream)

    def receive(self) -> Iterable[tuple[int, Answer]]:
        """What the library has answered; waits until there is something."""
        for arrival in self.pump.arrivals():
            item = self._work.get(arrival.key)
            if item is None:
                continue
            for answer in self._answers(item, arrival):
                yield arrival.key[0], answer
            if arrival.is_last or isinstance(item, Prompt) or item.is_finished:
                self._forget(arrival.key, read=arrival.error is None)

    def _answers(self, item: Prompt | Writing, arrival: Arrival[Any]) -> Iterator[Answer]:
        if arrival.error is not None:
            yield one_line(arrival.error)
        elif arrival.item is None:
            return
        elif isinstance(item, Prompt):
            try:
                yield self.scores_in(item, arrival.item)
            except EvalkitError as error:
                yield one_line(error)
        else:
            yield from item.take(arrival.item)

    def withdraw(self, number: int) -> None:
        """Stop reading; the streams see to it that the library stops, too."""
        self._held.pop(number, None)
        for key in [key for key in self._work if key[0] == number] or [(number, 0)]:
            self._forget(key, read=False)

    def _forget(self, key: tuple[int, int], *, read: bool) -> None:
        self._work.pop(key, None)
        self.pump.stop(key)
        for number in self.waves.ended(key[0], read=read) if self.waves else ():
            prompt = self._held.pop(number)
            self._read((number, 0), prompt, self.ask_prompt(prompt))

    # ── seeds ───────────────────────────────────────────────────────────────────────────────────────────
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate; an output says where its request's seed did not count."""
        notes = {item.index: self._notes(item) for item in requests}
        for index, output in super().decode_stream(requests, batch_size=batch_size):
            yield index, with_notes(output, notes[index])

    def decode_live(self, feed: Feed, wants_parts: Callable[[int], bool]) -> LiveAnswers:
        """Generate for a feed, with the same notes."""
        notes: dict[int, tuple[str, ...]] = {}

        def read() -> Feed:
            for arrival in feed:
                if isinstance(arrival, DecodeRequest):
                    notes[arrival.index] = self._notes(arrival)
                yield arrival

        for answer in super().decode_live(read(), wants_parts):
            if answer is None or isinstance(answer[1], GenerationPart):
                yield answer
            else:
                yield answer[0], with_notes(answer[1], notes.pop(answer[0], ()))

    def _notes(self, item: DecodeRequest) -> tuple[str, ...]:
        ignored = self.seed_note is not None and item.request.is_sampled and item.request.seed is not None
        return (self.seed_note,) if ignored and self.seed_note else ()
