"""One growing sequence: its request's own values, seed and stops, whatever batch it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evalkit.requests import FinishReason, GenerationOutput, GenerationRequest, Timing, TokenLogprob, Usage
from evalkit.scoring import StopWatch, cut_at_stops
from evalkit.sessions import DecodeRequest
from evalkit_transformers.sampling import next_token

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession


@dataclass(slots=True)
class Row:
    """One sequence in the making. A request for n samples has n rows."""

    item: DecodeRequest
    sample: int
    watch: StopWatch
    generator: torch.Generator | None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    first_token: float = 0.0
    token: int = 0
    """Chosen last, and read by the next step."""

    @property
    def request(self) -> GenerationRequest:
        """The request it answers."""
        return self.item.request


def make_rows(session: TransformersSession, item: DecodeRequest) -> list[Row]:
    """A row for each of the request's samples."""
    return [
        Row(item, sample, _watch(session, item.request), _generator(item.request, sample))
        for sample in range(item.request.n)
    ]


def _watch(session: TransformersSession, request: GenerationRequest) -> StopWatch:
    # With special tokens, because a stop string may be one.
    return StopWatch(request.stop, lambda ids: session.tokenizer.decode(ids, skip_special=False))


def _generator(request: GenerationRequest, sample: int) -> torch.Generator | None:
    if not request.is_sampled:
        return None
    generator = torch.Generator()
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed + sample)
    return generator


def advance(session: TransformersSession, row: Row, logits: Tensor) -> int:
    """Choose the row's next token and note whether it ends the row. `logits` is [vocabulary], float32."""
    request, eos = row.request, session.tokenizer.eos_token_ids
    allowed = logits
    if session.processors:
        ids = torch.tensor([[*_before(session, row), *row.watch.ids]], device=logits.device)
        allowed = session.processors(ids, logits[None])[0]
    if len(row.watch.ids) < request.min_new_tokens and eos:
        allowed = allowed.index_fill(0, torch.tensor(sorted(eos), device=logits.device), -torch.inf)
    token = next_token(allowed, request, row.generator)
    if request.logprobs is not None:
        row.logprobs.append(_logprob(session, logits, token, request.logprobs))
    take(session, row, token)
    return token


def _before(session: TransformersSession, row: Row) -> tuple[int, ...]:
    """What the text that is generated begins with: the prompt, or the start of an encoder-decoder's answer."""
    return (session.decoder_start,) if session.decoder_start is not None else row.item.prompt


def take(session: TransformersSession, row: Row, token: int) -> None:
    """Append a token to the row and note whether it ends it."""
    stopped = row.watch.push(token)
    enough = len(row.watch.ids) >= row.request.min_new_tokens
    if token in session.tokenizer.eos_token_ids or (stopped and enough):
        row.finish = "stop"
    elif len(row.watch.ids) >= row.request.max_new_tokens:
        row.finish = "length"


def _logprob(session: TransformersSession, logits: Tensor, token: int, top: int) -> TokenLogprob:
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(top) if top else None
    spell = session.tokenizer.decode
    return TokenLogprob(
        token,
        spell([token], skip_special=False),
        float(logprobs[token]),
        tuple(
            (int(i), spell([int(i)], skip_special=False), float(v))
            for v, i in (zip(best.values, best.indices, strict=True) if best else ())
        ),
    )


def make_output(session: TransformersSession, row: Row, seconds: float) -> GenerationOutput:
    """The finished row's output; `seconds` it took in all."""
    ids = tuple(row.watch.ids)
    text = cut_at_stops(session.tokenizer.decode(ids), row.request.stop)
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
