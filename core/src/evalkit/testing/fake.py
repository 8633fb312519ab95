"""A fake engine that is quick, deterministic and honest about the contract: a byte-level hash model.

Use it as `--engine evalkit.testing.fake:Fake`. Its options provoke what real engines do rarely: slow
batches, requests that fail alone, and memory that runs out.
"""

from __future__ import annotations

import math
import random
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evalkit.engine import BaseEngine
from evalkit.errors import OutOfMemoryError
from evalkit.model import Model
from evalkit.requests import FinishReason, GenerationOutput, Message, Usage
from evalkit.scoring import ScoredTokens, Scores, Span, StopWatch, cut_at_stops
from evalkit.scoring.planner import TreeBatch
from evalkit.scoring.spans import Top
from evalkit.sessions import DecodeRequest, TokenSession

BOS, EOS = 256, 257
VOCABULARY = 258


@dataclass(slots=True)
class Fake(BaseEngine):
    """`delay` seconds a batch; requests that hold the text `fail_on` fail; more than `max_rows` rows are too many.

    With `trees` shared prefixes are scored once, otherwise every request is a row of its own.
    """

    neutral_options: ClassVar[frozenset[str]] = frozenset({"delay", "fail_on", "max_rows", "batch_tokens", "trees"})

    delay: float = 0.0
    fail_on: str | None = None
    max_rows: int | None = None
    max_length: int = 2048
    batch_tokens: int = 4096
    trees: bool = False

    def build(self, model: Model) -> FakeSession:
        """A session; any model path will do."""
        return FakeSession(self, model)


class ByteTokenizer:
    """UTF-8 bytes as tokens, with a BOS that is never added by itself."""

    prefix_token_id = BOS
    eos_token_ids = frozenset({EOS})
    eos_text: str | None = "<eos>"
    vocab_size = VOCABULARY

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """The bytes of each text."""
        return [list(text.encode()) for text in texts]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of bytes; incomplete characters become replacement characters."""
        return bytes(token for token in ids if token < 256).decode("utf-8", "replace")

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """`<role>content` a line."""
        turns = "".join(f"<{message['role']}>{message['content']}\n" for message in messages)
        return turns + ("<assistant>" if add_generation_prompt else "")


class FakeSession(TokenSession):
    """Next-token scores are a hash of all tokens before."""

    def __init__(self, engine: Fake, model: Model) -> None:
        super().__init__(
            ByteTokenizer(), max_length=model.max_length or engine.max_length, batch_tokens=engine.batch_tokens
        )
        self.engine = engine
        self.shares_prefixes = engine.trees
        self.largest_batch = 0
        self.closed = False

    def score_batch(self, spans: list[Span]) -> list[ScoredTokens]:
        """Score spans; raises OutOfMemoryError for too many rows."""
        if self.engine.max_rows is not None and len(spans) > self.engine.max_rows:
            raise OutOfMemoryError(f"{len(spans)} rows")
        time.sleep(self.engine.delay)
        self.largest_batch = max(self.largest_batch, len(spans))
        self.count_computed(len(spans) * max(len(span.fed) for span in spans))
        return [self._score_span(span) for span in spans]

    def score_forest(self, batches: Iterator[TreeBatch]) -> Iterator[tuple[TreeBatch, Scores]]:
        """Score tree batches; what a token sees is put together from the resident chain and the batch."""
        chain: list[int] = []
        for batch in batches:
            if self.engine.max_rows is not None and len(batch.units) > self.engine.max_rows:
                raise OutOfMemoryError(f"{len(batch.units)} units")
            time.sleep(self.engine.delay)
            tokens = batch.tokens.tolist()
            chain = [*chain[: batch.keep], *tokens[: batch.chain]]
            scores = [next_scores(_seen(batch, chain, tokens, row)) for row in batch.rows.tolist()]
            yield batch, _scores(scores, batch.target_rows.tolist(), batch.targets.tolist(), batch.tops)

    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate request after request, the last one first: completion order is not input order."""
        for item in reversed(requests):
            time.sleep(self.engine.delay)
            yield item.index, self._generate(item)

    def gc(self) -> None:
        """Nothing to release."""

    def close(self) -> None:
        """Mark the session as closed."""
        self.closed = True

    def describe_execution(self) -> dict[str, Any]:
        """The fake's own options."""
        return {"backend": "fake", "max_length": self.max_length}

    def _score_span(self, span: Span) -> ScoredTokens:
        scores = [next_scores(span.ids[:position]) for position in range(span.start, len(span.ids))]
        return _scores(scores, list(range(len(scores))), list(span.targets), span.tops).part(0, len(scores))

    def _generate(self, item: DecodeRequest) -> GenerationOutput:
        request, ids = item.request, list(item.prompt)
        if self.engine.fail_on is not None and self.engine.fail_on in self.tokenizer.decode(ids):
            return GenerationOutput(finish_reason="error", error=f"the fake fails on {self.engine.fail_on!r}")
        watch = StopWatch(request.stop, self.tokenizer.decode)
        chance = random.Random(request.seed)
        finish: FinishReason = "length"
        while len(watch.ids) < request.max_new_tokens:
            token = _choose(next_scores(ids), request.temperature, chance)
            ids.append(token)
            if (watch.push(token) or token == EOS) and len(watch.ids) >= request.min_new_tokens:
                finish = "stop"
                break
        self.count_computed(len(ids))
        text = cut_at_stops(self.tokenizer.decode(watch.ids), request.stop)
        return GenerationOutput(text, tuple(watch.ids), finish, usage=Usage(len(item.prompt), len(watch.ids)))


def _seen(batch: TreeBatch, chain: list[int], tokens: list[int], row: int) -> list[int]:
    """All tokens that the one at `row` attends to, itself included, in the order of the text."""
    return chain[: batch.keep] + [tokens[at] for at in range(row + 1) if batch.reach[at] > row]


def next_scores(ids: Sequence[int], vocabulary: int = VOCABULARY) -> list[float]:
    """Unnormalised scores of all next tokens."""
    state = zlib.crc32(b"".join(token.to_bytes(2, "little") for token in ids))
    return [((state ^ (token * 2654435761)) * 2246822519 >> 16 & 0xFFFF) / 8192 for token in range(vocabulary)]


def _choose(scores: list[float], temperature: float, chance: random.Random) -> int:
    if temperature <= 0:
        return max(range(len(scores)), key=scores.__getitem__)
    weights = [math.exp(score / temperature) for score in scores]
    return chance.choices(range(len(scores)), weights)[0]


def _scores(scores: list[list[float]], rows: list[int], targets: list[int], tops: int) -> Scores:
    """The scores of targets, each at its row of `scores`."""
    chosen = [(scores[row], token) for row, token in zip(rows, targets, strict=True)]
    logprobs = [found[token] - _logsumexp(found) for found, token in chosen]
    greedy = [max(found) == found[token] for found, token in chosen]
    if not tops:
        return Scores(np.array(logprobs), np.array(greedy, bool))
    best = [sorted(range(VOCABULARY), key=lambda token: -found[token])[:tops] for found, _ in chosen]
    values = [[found[token] - _logsumexp(found) for token in ids] for (found, _), ids in zip(chosen, best, strict=True)]
    return Scores(np.array(logprobs), np.array(greedy, bool), Top(np.array(best), np.array(values)))


def _logsumexp(scores: list[float]) -> float:
    top = max(scores)
    return top + math.log(math.fsum(math.exp(score - top) for score in scores))
