"""A group of sequences behind one prefix: they join, take a step together, and leave as they finish."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from evalkit.decoding.rows import Row, make_output, merge
from evalkit.requests import GenerationOutput
from evalkit.scoring import Drafter, Tokenizer

Answers = Iterator[tuple[int, GenerationOutput]]
Choose = Callable[[Row, Any], object]
"""`choose(row, logits)` takes the row's next token."""


class Decoder(Protocol):
    """A model's passes over sequences in slots 0, 1, ... behind one prefix. Each raises OutOfMemoryError.

    Logits come as what `choose` of the engine reads: one item a token.
    """

    def begin(self, prefix: tuple[int, ...]) -> None:
        """Drop all sequences and read the prefix, which may be empty."""
        ...

    def admit(self, suffixes: list[tuple[int, ...]]) -> Iterable[Any]:
        """Read what new sequences have behind the prefix, into the next slots; the logits behind each."""
        ...

    def step(self, fed: list[list[int]]) -> Iterable[Iterable[Any]]:
        """Read further tokens of every slot; for each slot, the logits behind each of them."""
        ...

    def keep(self, slot: int, tokens: int) -> None:
        """Forget all but the first `tokens` of what the last step fed to a slot."""
        ...

    def drop(self, slot: int) -> None:
        """Free a slot; the last one moves into its place."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one generation may use: sequences at a time, tokens in a pass, in guesses and in the cache."""

    rows: int
    admitted_tokens: int
    """Prompt tokens that join in one pass."""
    draft_tokens: int = 0
    """Tokens guessed ahead for one sequence."""
    drafted_pass: int = 0
    """Tokens in a pass up to which guesses are worth their cost."""
    cache_tokens: int | None = None
    """Tokens that the cache holds, prefix and answers included."""


class Group:
    """Rows behind one shared prefix."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        rows: list[Row],
        prefix: int,
        limits: Limits,
        choose: Choose,
    ) -> None:
        self.decoder, self.tokenizer, self.limits, self.choose = decoder, tokenizer, limits, choose
        self.prefix = prefix
        self.waiting = deque(rows)
        self.slots = min(limits.rows, len(rows))
        self.active: list[Row] = []
        self.drafters: dict[int, Drafter] = {}
        self.finished: dict[int, list[tuple[int, GenerationOutput]]] = {}

    def run(self) -> Answers:
        """Yield each request's output once all its samples are there."""
        self.decoder.begin(self.waiting[0].item.prompt[: self.prefix])
        while self.waiting or self.active:
            if joining := self._joining():
                self._admit(joining)
            else:
                self._step()
            yield from self._leave()

    def _joining(self) -> list[Row]:
        """Rows to read now, as many as slots, cache and the token budget allow."""
        free, joining = self.slots - len(self.active), list[Row]()
        # A few free slots are not worth a pass of their own while others are running, unless nobody else waits.
        if self.active and free < min(max(1, self.slots // 8), len(self.waiting)):
            return joining
        size, cached = 0, self.prefix + sum(map(self._room, self.active))
        while self.waiting and len(joining) < free:
            row = self.waiting[0]
            size += len(row.item.prompt) - self.prefix
            cached += self._room(row)
            full = self.limits.cache_tokens is not None and cached > self.limits.cache_tokens
            if (joining and size > self.limits.admitted_tokens) or ((joining or self.active) and full):
                break
            joining.append(self.waiting.popleft())
        return joining

    def _room(self, row: Row) -> int:
        """Tokens that a row may come to hold behind the prefix."""
        return len(row.item.prompt) - self.prefix + row.request.max_new_tokens

    def _admit(self, joining: list[Row]) -> None:
        now, ahead = time.perf_counter(), self.limits.draft_tokens
        for row in joining:
            row.started = now
            self.drafters[id(row)] = Drafter(row.item.prompt, row.request.max_new_tokens, ahead)
        logits = self.decoder.admit([row.item.prompt[self.prefix :] for row in joining])
        self.active += joining
        for row, scores in zip(joining, logits, strict=True):
            self._choose(row, [], [scores])

    def _step(self) -> None:
        """One pass over the last token of every active row and the guesses behind it."""
        guesses = self._guess()
        fed = [[row.token, *guess] for row, guess in zip(self.active, guesses, strict=True)]
        logits = self.decoder.step(fed)
        for slot, (row, guess, scores) in enumerate(zip(self.active, guesses, logits, strict=True)):
            self.decoder.keep(slot, self._choose(row, guess, scores))

    def _guess(self) -> list[list[int]]:
        """Guesses for each active row: first for those whose guesses come true, as many as a pass has room for."""
        room = max(0, self.limits.drafted_pass - len(self.active))
        guesses: dict[int, list[int]] = {}
        for row in sorted(self.active, key=lambda row: -self.drafters[id(row)].ahead):
            # The last token that a row may have needs no pass of its own.
            most = min(room, row.request.max_new_tokens - len(row.watch.ids) - 1)
            guesses[id(row)] = self.drafters[id(row)].guess(most)
            room -= len(guesses[id(row)])
        return [guesses[id(row)] for row in self.active]

    def _choose(self, row: Row, guess: list[int], logits: Iterable[Any]) -> int:
        """Choose tokens while what they follow was guessed right; how many. `logits` has 1 item more than `guess`."""
        chosen: list[int] = []
        for scores in logits:
            self.choose(row, scores)
            chosen.append(row.token)
            if row.finish is not None or chosen != guess[: len(chosen)]:
                break
        row.first_token = row.first_token or time.perf_counter() - row.started
        self.drafters[id(row)].push(chosen)
        self.drafters[id(row)].learn(len(guess), len(chosen) - 1)
        return len(chosen)

    def _leave(self) -> Answers:
        """Let rows that are done leave; the outputs that they complete."""
        left = [(slot, row) for slot, row in enumerate(self.active) if row.finish is not None]
        for slot, _ in reversed(left):
            self._free(slot)
        for _, row in left:
            samples = self.finished.setdefault(row.item.index, [])
            samples.append((row.sample, make_output(self.tokenizer, row, time.perf_counter() - row.started)))
            if len(samples) == row.request.n:
                yield row.item.index, merge([output for _, output in sorted(samples, key=lambda pair: pair[0])])

    def _free(self, slot: int) -> None:
        self.decoder.drop(slot)
        del self.drafters[id(self.active[slot])]
        # As in the decoder, the last row takes the place.
        last = self.active.pop()
        if slot < len(self.active):
            self.active[slot] = last
