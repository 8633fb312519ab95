"""What SGLang answers, in evalkit's terms: token ids, and log-probabilities at the places that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evalkit.errors import RequestError
from evalkit.requests import TokenLogprob
from evalkit.scoring import ScoredTokens
from evalkit.scoring.prompts import Prompt, PromptScores

Reply = Mapping[str, Any]
Place = Sequence[tuple[float, int, str | None]]
"""Log-probability, token id and text of some tokens at one place."""


def scoring_arguments(prompt: Prompt) -> dict[str, Any]:
    """What to ask SGLang for to score a prompt: one token is written, and not looked at."""
    asked: dict[str, Any] = {"input_ids": list(prompt.ids), "sampling_params": {"max_new_tokens": 1, "temperature": 0}}
    if not (prompt.scored or prompt.next_ids):
        return asked
    # Log-probabilities begin behind the token at `logprob_start_len`, and what is before it may come from the cache.
    first = prompt.start - 1 if prompt.scored else len(prompt.ids)
    asked |= {"return_logprob": True, "logprob_start_len": first, "top_logprobs_num": max(prompt.tops, 1)}
    if prompt.next_ids:
        asked["token_ids_logprob"] = list(prompt.next_ids)
    return asked


def prompt_scores(prompt: Prompt, reply: Reply) -> PromptScores:
    """The scores in SGLang's answer. Raises RequestError where it is not about the tokens that were asked for."""
    meta = reply["meta_info"]
    computed = meta["prompt_tokens"] - meta["cached_tokens"]
    scored = _scored(prompt, meta) if prompt.scored else ScoredTokens((), True)
    if not prompt.next_ids:
        return PromptScores(scored, computed=computed)
    found = {token: logprob for logprob, token, *_ in meta["output_token_ids_logprobs"][0]}
    if lacking := [token for token in prompt.next_ids if token not in found]:
        raise RequestError(f"sglang gave no log-probability of token {lacking[0]}. Is its version known to work?")
    logprobs = tuple(found[token] for token in prompt.next_ids)
    # Where two are equally likely, each of them is what greedy decoding may choose.
    best = _best(meta["output_top_logprobs"][0], prompt.next_ids, logprobs)
    return PromptScores(scored, logprobs, best, computed)


def _scored(prompt: Prompt, meta: Mapping[str, Any]) -> ScoredTokens:
    """Scores of the prompt's own tokens; the first entry is the token that stands before them, without a score."""
    entries, tops = meta["input_token_logprobs"][1:], meta["input_top_logprobs"][1:]
    if [token for _, token, *_ in entries] != list(prompt.ids[prompt.start :]) or len(tops) != len(entries):
        raise RequestError("sglang scored other tokens than those asked for. Is its version known to work?")
    logprobs = tuple(logprob for logprob, *_ in entries)
    greedy = all(logprob >= place[0][0] for logprob, place in zip(logprobs, tops, strict=True))
    top = tuple(_pairs(place)[: prompt.tops] for place in tops) if prompt.tops else None
    return ScoredTokens(logprobs, greedy, top)


def _best(place: Place, asked: Sequence[int], logprobs: Sequence[float]) -> int:
    likeliest = max(range(len(asked)), key=logprobs.__getitem__)
    return asked[likeliest] if logprobs[likeliest] >= place[0][0] else place[0][1]


def _pairs(place: Place) -> tuple[tuple[int, float], ...]:
    return tuple((token, logprob) for logprob, token, *_ in place)


def token_logprobs(
    reply: Reply, first: int, last: int, tops: int, spell: Callable[[Sequence[int]], str]
) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of the written tokens `first` to `last`, with the `tops` likeliest beside each."""
    meta = reply["meta_info"]
    written = meta["output_token_logprobs"][first:last]
    places = meta["output_top_logprobs"][first:last] if tops else [()] * len(written)
    return tuple(
        TokenLogprob(token, spell([token]), logprob, tuple((t, spell([t]), value) for t, value in _pairs(place)))
        for (logprob, token, *_), place in zip(written, places, strict=True)
    )
