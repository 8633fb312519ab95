"""From logits to the next token, by a request's own values, with numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.decoding.rows import Row, take
from evalkit.requests import GenerationRequest, TokenLogprob
from evalkit.scoring import Tokenizer
from evalkit.scoring.logits import log_softmax

Floats = NDArray[np.float32]
Adjust = Callable[[Sequence[int], Floats], Floats]
"""From a text's tokens and the logits behind it to those that its next token is chosen by; it changes neither."""


def generator(request: GenerationRequest, sample: int) -> np.random.Generator:
    """Random numbers of one sample: the same for the same seed, others for each sample."""
    return np.random.default_rng(None if request.seed is None else request.seed + sample)


def choose(tokenizer: Tokenizer, row: Row, logits: Floats, adjust: Adjust | None = None) -> None:
    """Take the row's next token. `logits` is [vocabulary] in float32, and is not changed."""
    request, allowed = row.request, logits
    if adjust is not None:
        allowed = adjust((*row.item.prompt, *row.watch.ids), logits)
    if len(row.watch.ids) < request.min_new_tokens and tokenizer.eos_token_ids:
        allowed = allowed.copy()
        allowed[list(tokenizer.eos_token_ids)] = -np.inf
    token = next_token(allowed, request, row.generator)
    if request.logprobs is not None:
        row.logprobs.append(_logprob(tokenizer, logits, token, request.logprobs))
    take(tokenizer, row, token)


def next_token(logits: Floats, request: GenerationRequest, generator: np.random.Generator | None) -> int:
    """A token for one row, forbidden tokens at -inf.

    The limits apply in the usual order: temperature, top_k, top_p, min_p.
    """
    if generator is None:
        return int(logits.argmax())
    order, probabilities = limited(logits.astype(np.float64) / request.temperature, request)
    return int(order[np.searchsorted(probabilities.cumsum(), generator.random() * probabilities.sum(), side="right")])


def limited(logits: NDArray[np.float64], request: GenerationRequest) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens within top_k, top_p and min_p, likeliest first, and their probabilities, not normalised."""
    order = np.argsort(-logits, kind="stable")
    if request.top_k > 0:
        # Tokens as likely as the last of them stay too.
        last = logits[order[min(request.top_k, len(order)) - 1]]
        order = order[logits[order] >= last]
    probabilities = np.exp(logits[order] - logits[order[0]])
    if request.top_p < 1:
        # A token stays while those before it have not reached top_p; the first always stays.
        before = probabilities.cumsum() - probabilities
        kept = before < request.top_p * probabilities.sum()
        kept[0] = True
        order, probabilities = order[kept], probabilities[kept]
    if request.min_p > 0:
        kept = probabilities >= request.min_p * probabilities[0]
        order, probabilities = order[kept], probabilities[kept]
    return order, probabilities


def _logprob(tokenizer: Tokenizer, logits: Floats, token: int, top: int) -> TokenLogprob:
    logprobs = log_softmax(logits)
    best = np.argsort(-logprobs, kind="stable")[:top].tolist()
    spell = {number: tokenizer.decode([number], skip_special=False) for number in (token, *best)}
    alternatives = tuple((number, spell[number], float(logprobs[number])) for number in best)
    return TokenLogprob(token, spell[token], float(logprobs[token]), alternatives)
