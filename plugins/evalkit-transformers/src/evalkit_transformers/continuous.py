"""Continuous generation: sequences join and leave as they finish, and a shared prefix is computed once.

Where few sequences are running, their texts' own repetitions are guessed and checked in the same pass.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evalkit.requests import GenerationOutput
from evalkit.scoring import Drafter
from evalkit.scoring.planner import chain_batches, suffix_batch
from evalkit.scoring.shared import prefix_groups
from evalkit.sessions import DecodeRequest
from evalkit_transformers.memory import memory_errors
from evalkit_transformers.rows import Row, advance, make_output, make_rows, merge
from evalkit_transformers.slots import Slots
from evalkit_transformers.tree import running_pass

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession

DRAFTED_PASS = {"cpu": 32, "cuda": 256}
"""Tokens in a pass up to which guesses are worth their cost: on a CPU every token more takes its time."""


def stream(
    session: TransformersSession, items: list[DecodeRequest], rows: int
) -> Iterator[tuple[int, GenerationOutput]]:
    """Answer all requests, at most `rows` sequences at a time. Raises OutOfMemoryError."""
    with session.tree.installed():
        for group in prefix_groups([item.prompt for item in items]):
            members = [items[index] for index in group.members]
            yield from _Group(session, members, group.prefix, rows).run()


class _Group:
    """Requests behind one shared prefix."""

    def __init__(self, session: TransformersSession, items: list[DecodeRequest], prefix: int, rows: int) -> None:
        self.session, self.items, self.prefix = session, items, prefix
        self.waiting = deque(row for item in items for row in make_rows(session, item))
        self.slots_wanted = min(rows, len(self.waiting))
        self.active: list[Row] = []
        self.drafters: dict[int, Drafter] = {}
        self.started: dict[int, float] = {}
        self.finished: dict[int, list[tuple[int, GenerationOutput]]] = {}

    def run(self) -> Iterator[tuple[int, GenerationOutput]]:
        """Yield each request's output once all its samples are there."""
        with torch.inference_mode(), memory_errors(self.session.device):
            self._compute_prefix()
            self.slots = Slots(self.session.tree.cache, self.prefix)
        while self.waiting or self.active:
            with torch.inference_mode(), memory_errors(self.session.device):
                done = self._admit() if self._should_admit() else self._step()
            yield from self._outputs(done)

    def _compute_prefix(self) -> None:
        session = self.session
        for batch in chain_batches(self.items[0].prompt[: self.prefix], session.batch_tokens):
            with session.tree.running(batch):
                session.tree_logits(batch)

    def _should_admit(self) -> bool:
        """Whether enough slots are free to make a prefill worth its pass, or nothing else is left to do."""
        free = self.slots_wanted - len(self.active)
        return bool(self.waiting) and (not self.active or free >= max(1, self.slots_wanted // 8))

    def _admit(self) -> list[Row]:
        """Read the prompts of waiting rows, as many as slots and the token budget allow; rows that are done."""
        session, size = self.session, 0
        joining: list[Row] = []
        while self.waiting and len(self.active) + len(joining) < self.slots_wanted:
            size += len(self.waiting[0].item.prompt) - self.prefix
            if joining and size > session.batch_tokens:
                break
            joining.append(self.waiting.popleft())
        now = time.perf_counter()
        self.started.update({id(row): now for row in joining})
        batch = suffix_batch(self.prefix, [row.item.prompt[self.prefix :] for row in joining])
        with session.tree.running(batch, collect=True) as tree:
            logits = session.tree_logits(batch)
        self.slots.admit(tree.computed, batch.units)
        self.active += joining
        for row, scores in zip(joining, logits.float(), strict=True):
            self._start(row)
            self._choose(row, [], scores[None])
        return self._leave()

    def _start(self, row: Row) -> None:
        request = row.request
        self.drafters[id(row)] = Drafter(row.item.prompt, request.max_new_tokens, self.session.draft_tokens)

    def _step(self) -> list[Row]:
        """One pass over the last token of every active row and the guesses behind it; rows that are done."""
        session, guesses = self.session, self._guess()
        fed = [[row.token, *guess] for row, guess in zip(self.active, guesses, strict=True)]
        counts = [len(tokens) for tokens in fed]
        positions = self.slots.begin_step(counts).to(session.device)[None]
        ids = torch.tensor([token for tokens in fed for token in tokens], device=session.device)[None]
        session.count_computed(ids.numel())
        places = torch.arange(ids.numel())
        with running_pass(self.slots):
            logits = session.head.logits(
                lambda: session.forward(input_ids=ids, position_ids=positions, use_cache=False).logits,
                torch.zeros_like(places),
                places,
            )
        parts = logits.float().split(counts)
        for slot, (row, guess, scores) in enumerate(zip(self.active, guesses, parts, strict=True)):
            self.slots.grow(slot, self._choose(row, guess, scores))
        return self._leave()

    def _guess(self) -> list[list[int]]:
        """Guesses for each active row: first for those whose guesses come true, as many as a pass has room for."""
        room = max(0, DRAFTED_PASS.get(self.session.device.type, 64) - len(self.active))
        guesses: dict[int, list[int]] = {}
        for row in sorted(self.active, key=lambda row: -self.drafters[id(row)].ahead):
            # The last token that a row may have needs no pass of its own.
            most = min(room, row.request.max_new_tokens - len(row.watch.ids) - 1)
            guesses[id(row)] = self.drafters[id(row)].guess(most)
            room -= len(guesses[id(row)])
        return [guesses[id(row)] for row in self.active]

    def _choose(self, row: Row, guess: list[int], logits: Tensor) -> int:
        """Choose tokens while what they follow was guessed right; how many. `logits` is [1 + guesses, vocabulary]."""
        chosen: list[int] = []
        for scores in logits:
            row.token = advance(self.session, row, scores)
            chosen.append(row.token)
            if row.finish is not None or chosen != guess[: len(chosen)]:
                break
        row.first_token = row.first_token or time.perf_counter() - self.started[id(row)]
        self.drafters[id(row)].push(chosen)
        self.drafters[id(row)].learn(len(guess), len(chosen) - 1)
        return len(chosen)

    def _leave(self) -> list[Row]:
        """Let rows that are done leave; which they are."""
        done = [number for number, row in enumerate(self.active) if row.finish is not None]
        left = [self.active[number] for number in done]
        for number in reversed(done):
            self.slots.drop(number)
            # As in the slots, the last row takes the place.
            last = self.active.pop()
            if number < len(self.active):
                self.active[number] = last
        for row in left:
            del self.drafters[id(row)]
        return left

    def _outputs(self, done: list[Row]) -> Iterator[tuple[int, GenerationOutput]]:
        for row in done:
            samples = self.finished.setdefault(row.item.index, [])
            seconds = time.perf_counter() - self.started.pop(id(row))
            samples.append((row.sample, make_output(self.session, row, seconds)))
            if len(samples) == row.request.n:
                yield row.item.index, merge([output for _, output in sorted(samples, key=lambda pair: pair[0])])
