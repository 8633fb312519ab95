"""One growing sequence: its request's own values, seed and stops, whatever batch it is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalkit.requests import FinishReason, GenerationOutput, GenerationRequest, Timing, TokenLogprob, Usage
from evalkit.scoring import StopWatch, Tokenizer, cut_at_stops
from evalkit.sessions import DecodeRequest

MakeGenerator = Callable[[GenerationRequest, int], Any]
"""Random numbers for one sample of a request, by its number."""


@dataclass(slots=True)
class Row:
    """One sequence in the making. A request for n samples has n rows."""

    item: DecodeRequest
    sample: int
    watch: StopWatch
    generator: Any
    """Of random numbers; None for a greedy request."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    started: float = 0.0
    first_token: float = 0.0
    token: int = 0
    """Chosen last, and read by the next step."""

    @property
    def request(self) -> GenerationRequest:
        """The request it answers."""
        return self.item.request


def make_rows(tokenizer: Tokenizer, item: DecodeRequest, generator: MakeGenerator) -> list[Row]:
    """A row for each of the request's samples."""
    # With special tokens, because a stop string may be one.
    return [
        Row(
            item,
            sample,
            StopWatch(item.request.stop, lambda ids: tokenizer.decode(ids, skip_special=False)),
            generator(item.request, sample) if item.request.is_sampled else None,
        )
        for sample in range(item.request.n)
    ]


def take(tokenizer: Tokenizer, row: Row, token: int) -> None:
    """Append a token to the row and note whether it ends it."""
    row.token = token
    stopped = row.watch.push(token)
    enough = len(row.watch.ids) >= row.request.min_new_tokens
    if token in tokenizer.eos_token_ids or (stopped and enough):
        row.finish = "stop"
    elif len(row.watch.ids) >= row.request.max_new_tokens:
        row.finish = "length"


def make_output(tokenizer: Tokenizer, row: Row, seconds: float) -> GenerationOutput:
    """The finished row's output; `seconds` it took in all."""
    ids = tuple(row.watch.ids)
    text = cut_at_stops(tokenizer.decode(ids), row.request.stop)
    return GenerationOutput(
        text=text,
        token_ids=ids,
        finish_reason=row.finish or "length",
        logprobs=tuple(row.logprobs) if row.request.logprobs is not None else None,
        usage=Usage(len(row.item.prompt), len(ids)),
        timing=Timing(row.first_token, seconds),
    )


def merge(samples: Sequence[GenerationOutput]) -> GenerationOutput:
    """One output of a request's samples: the first, with the others as alternatives."""
    return replace(samples[0], alternatives=tuple(samples[1:])) if len(samples) > 1 else samples[0]
