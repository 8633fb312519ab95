"""The passes of continuous generation: packed rows of new tokens over one resident prefix and a slot a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from evalkit import decoding
from evalkit.decoding import Row
from evalkit.requests import GenerationOutput
from evalkit.scoring.planner import chain_batches, suffix_batch
from evalkit.sessions import DecodeRequest
from evalkit_transformers.memory import memory_errors, step_padding
from evalkit_transformers.sampling import advance, generator
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
    decoder = TransformersDecoder(session)
    with session.tree.installed():
        yield from decoding.stream(decoder, session.tokenizer, items, _limits(session, rows), generator, decoder.choose)


def live(
    session: TransformersSession, feed: decoding.Feed, rows: int, wants_parts: Callable[[int], bool]
) -> decoding.LiveAnswers:
    """Answer what arrives, at most `rows` sequences at a time. Raises OutOfMemoryError."""
    decoder, limits = TransformersDecoder(session), _limits(session, rows)
    with session.tree.installed():
        yield from decoding.live(decoder, session.tokenizer, feed, limits, wants_parts, generator, decoder.choose)


def _limits(session: TransformersSession, rows: int) -> decoding.Limits:
    return decoding.Limits(
        rows=rows,
        admitted_tokens=session.batch_tokens,
        draft_tokens=session.draft_tokens,
        drafted_pass=DRAFTED_PASS.get(session.device.type, 64),
    )


class TransformersDecoder:
    """Sequences behind one prefix: its keys and values are the tree's chain, those of each sequence are in a slot."""

    def __init__(self, session: TransformersSession) -> None:
        self.session = session

    def begin(self, prefix: tuple[int, ...]) -> None:
        """Read the prefix, in parts that fit the budget."""
        session = self.session
        with self._computing():
            for batch in chain_batches(prefix, session.batch_tokens):
                with session.tree.running(batch):
                    session.tree_logits(batch)
        self.slots = Slots(session.tree.cache, len(prefix))

    def admit(self, suffixes: list[tuple[int, ...]]) -> Tensor:
        """Read new sequences in one packed row; logits [sequences, vocabulary] behind each."""
        batch = suffix_batch(self.slots.prefix, suffixes)
        with self._computing(), self.slots.admitting(batch.units) as store, self.session.tree.running(batch, store):
            return self.session.tree_logits(batch).float()

    def step(self, fed: list[list[int]]) -> tuple[Tensor, ...]:
        """Read further tokens of every sequence in one packed row; for each, logits [tokens, vocabulary]."""
        session, counts = self.session, [len(tokens) for tokens in fed]
        with self._computing():
            more = step_padding(sum(counts), session.device)
            positions = pad(self.slots.begin_step(counts), (0, more)).to(session.device)[None]
            ids = pad(torch.tensor([token for tokens in fed for token in tokens]), (0, more)).to(session.device)[None]
            session.count_computed(ids.numel())
            places = torch.arange(ids.numel())
            with running_pass(self.slots):
                logits = session.head.logits(
                    lambda: session.forward(input_ids=ids, position_ids=positions, use_cache=False).logits,
                    torch.zeros_like(places),
                    places,
                )
            parts: tuple[Tensor, ...] = logits[: sum(counts)].float().split(counts)
        return parts

    def choose(self, row: Row, logits: Tensor) -> None:
        """Take the row's next token."""
        with self._computing():
            advance(self.session, row, logits)

    def keep(self, slot: int, tokens: int) -> None:
        """Keep the first of a slot's new tokens."""
        self.slots.grow(slot, tokens)

    def drop(self, slot: int) -> None:
        """Free a slot; the last one moves into its place."""
        with self._computing():
            self.slots.drop(slot)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), memory_errors(self.session.device):
            yield
