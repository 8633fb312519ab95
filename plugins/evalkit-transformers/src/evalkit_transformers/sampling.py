"""Choose the next token of each row by its own request's values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evalkit import decoding
from evalkit.decoding import Row
from evalkit.requests import GenerationRequest, TokenLogprob

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession


def generator(request: GenerationRequest, sample: int) -> torch.Generator:
    """Random numbers of one sample: the same for the same seed, others for each sample."""
    made = torch.Generator()
    if request.seed is None:
        made.seed()
    else:
        made.manual_seed(request.seed + sample)
    return made


def advance(session: TransformersSession, row: Row, logits: Tensor) -> None:
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
    decoding.take(session.tokenizer, row, token)


def _before(session: TransformersSession, row: Row) -> tuple[int, ...]:
    """What the text that is generated begins with: the prompt, or the start of an encoder-decoder's answer."""
    return (session.decoder_start,) if session.decoder_start is not None else row.item.prompt


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


def next_token(logits: Tensor, request: GenerationRequest, generator: torch.Generator | None) -> int:
    """A token for one row. `logits` is [vocabulary] in float32, forbidden tokens at -inf.

    The limits apply in the usual order: temperature, top_k, top_p, min_p.
    """
    if not request.is_sampled:
        return int(logits.argmax())
    probabilities = torch.softmax(limited(logits / request.temperature, request), dim=-1)
    # Drawn on the CPU, so that a seed gives the same draw from the same distribution on every device.
    return int(torch.multinomial(probabilities.cpu(), 1, generator=generator))


def limited(logits: Tensor, request: GenerationRequest) -> Tensor:
    """`logits` with all tokens outside top_k, top_p and min_p at -inf."""
    if request.top_k > 0:
        kept = min(request.top_k, logits.numel())
        logits = logits.masked_fill(logits < logits.topk(kept).values[-1], -torch.inf)
    if request.top_p < 1:
        ordered, index = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        # A token stays while those before it have not reached top_p; the first always stays.
        beyond = probabilities.cumsum(-1) - probabilities >= request.top_p
        beyond[0] = False
        logits = logits.masked_fill(beyond.scatter(0, index, beyond), -torch.inf)
    if request.min_p > 0:
        probabilities = logits.softmax(-1)
        logits = logits.masked_fill(probabilities < request.min_p * probabilities.max(), -torch.inf)
    return logits
