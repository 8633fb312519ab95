"""Continuous generation: sequences join and leave as they finish, and a shared prefix is computed once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evalkit.requests import GenerationOutput
from evalkit.scoring.planner import chain_batches, suffix_batch
from evalkit.scoring.shared import prefix_groups
from evalkit.sessions import DecodeRequest
from evalkit_transformers.memory import memory_errors
from evalkit_transformers.rows import Row, advance, make_output, make_rows, merge
from evalkit_transformers.slots import Slots
from evalkit_transformers.tree import running_pass

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession


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
        self.room = max(len(item.prompt) - prefix + item.request.max_new_tokens for item in items)
        self.active: list[Row] = []
        self.started: dict[int, float] = {}
        self.finished: dict[int, list[tuple[int, GenerationOutput]]] = {}

    def run(self) -> Iterator[tuple[int, GenerationOutput]]:
        """Yield each request's output once all its samples are there."""
        with torch.inference_mode(), memory_errors(self.session.device):
            self._compute_prefix()
            self.slots = Slots(self.session.tree.cache, self.prefix, self.slots_wanted, self.room)
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
        first = len(self.active)
        self.active += joining
        return self._advance(logits, first)

    def _step(self) -> list[Row]:
        """One token more for every active row; rows that are done."""
        session = self.session
        positions = self.slots.begin_step().to(session.device)
        ids = torch.tensor([row.token for row in self.active], device=session.device)[:, None]
        session.count_computed(len(self.active))
        rows = torch.arange(len(self.active))
        with running_pass(self.slots):
            logits = session.head.logits(
                lambda: session.forward(input_ids=ids, position_ids=positions, use_cache=False).logits,
                rows,
                torch.zeros_like(rows),
            )
        return self._advance(logits, 0)

    def _advance(self, logits: Tensor, first: int) -> list[Row]:
        """Choose tokens for active rows from number `first` on, and let those that are done leave."""
        for number, scores in enumerate(logits.float(), start=first):
            row = self.active[number]
            row.token = advance(self.session, row, scores)
            row.first_token = row.first_token or time.perf_counter() - self.started[id(row)]
        done = [number for number, row in enumerate(self.active) if row.finish is not None]
        left = [self.active[number] for number in done]
        for number in reversed(done):
            self.slots.drop(number)
            # As in the slots, the last row takes the place.
            last = self.active.pop()
            if number < len(self.active):
                self.active[number] = last
        return left

    def _outputs(self, done: list[Row]) -> Iterator[tuple[int, GenerationOutput]]:
        for row in done:
            samples = self.finished.setdefault(row.item.index, [])
            seconds = time.perf_counter() - self.started.pop(id(row))
            samples.append((row.sample, make_output(self.session, row, seconds)))
            if len(samples) == row.request.n:
                yield row.item.index, merge([output for _, output in sorted(samples, key=lambda pair: pair[0])])
