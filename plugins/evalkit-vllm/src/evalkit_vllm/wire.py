"""What vLLM is asked and what it answers: requests as sampling parameters, its outputs as ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from evalkit.errors import RequestError, one_line
from evalkit.prompts import Decode, Written
from evalkit.requests import FinishReason, GenerationRequest, TokenLogprob
from evalkit.scoring import ScoredTokens, Tokenizer
from evalkit.scoring.prompts import NOTHING, Prompt, PromptScores
from evalkit_vllm.library import RequestOutputKind, SamplingParams, VLLMValidationError

MOST_NEXT_IDS = 128
"""Token ids that vLLM takes for one position."""


def scoring_params(prompt: Prompt, *, cached: bool) -> SamplingParams:
    """Parameters for a prompt; `cached`: what the cache holds of it need not be read again."""
    scored: dict[str, Any] = {}
    if prompt.scored:
        # At least one beside the prompt's own tokens: it tells whether those are the likeliest. vLLM leaves the cache
        # alone by itself, because scores of cached tokens are lost; ours begin behind what is cached.
        scored = {"prompt_logprobs": max(prompt.tops, 1), "skip_reading_prefix_cache": not cached}
    if prompt.next_ids:
        scored["logprob_token_ids"] = list(prompt.next_ids)
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        ignore_eos=True,
        detokenize=False,
        flat_logprobs=True,
        skip_clone=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **scored,
    )


def read_scores(prompt: Prompt, output: Any) -> PromptScores:
    """The answer to a prompt."""
    (written,) = output.outputs
    computed = len(prompt.ids) - (output.num_cached_tokens or 0)
    scored = _scored(prompt, output.prompt_logprobs) if prompt.scored else NOTHING
    best = written.token_ids[0]
    if not prompt.next_ids:
        return PromptScores(scored, best=best, computed=computed)
    # The written token comes first, then those that were asked for, in order.
    found = written.logprobs.logprobs[1 : 1 + len(prompt.next_ids)]
    return PromptScores(scored, tuple(found), best, computed)


def _scored(prompt: Prompt, flat: Any) -> ScoredTokens:
    """From the end, because some versions list only tokens that were computed."""
    logprobs, greedy, tops = [], True, []
    for first, last in zip(flat.start_indices[-prompt.scored :], flat.end_indices[-prompt.scored :], strict=True):
        ids, values = flat.token_ids[first:last], flat.logprobs[first:last]
        logprobs.append(values[0])
        # Of several tokens that are equally likely, greedy decoding takes the first.
        greedy = greedy and (ids[0] == ids[1] or (values[0] == values[1] and ids[0] < ids[1]))
        tops.append(tuple(zip(ids[1:], values[1:], strict=True)))
    return ScoredTokens(tuple(logprobs), greedy, tuple(tops) if prompt.tops else None)


def decoding_params(
    work: Decode, ends: Iterable[int], penalties: dict[str, float], *, vocabulary: int
) -> SamplingParams:
    """Parameters for a request. Raises RequestError for values that vLLM does not take."""
    request = work.item.request
    if request.logprobs is not None and request.logprobs > vocabulary:
        raise RequestError(f"logprobs is {request.logprobs}, and the vocabulary has {vocabulary} tokens")
    stops = [stop for stop in request.stop if stop]
    try:
        return SamplingParams(
            n=request.n,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            seed=request.seed,
            stop=stops,
            stop_token_ids=sorted(ends),
            max_tokens=request.max_new_tokens,
            min_tokens=min(request.min_new_tokens, request.max_new_tokens),
            logprobs=request.logprobs,
            detokenize=bool(stops),
            # A stop string may be a special token; the text is decoded anew.
            skip_special_tokens=False,
            skip_clone=True,
            output_kind=RequestOutputKind.DELTA if work.parts else RequestOutputKind.FINAL_ONLY,
            **penalties,
        )
    except (VLLMValidationError, ValueError, TypeError) as error:
        raise RequestError(f"vLLM does not take these values: {one_line(error)}") from error


def read_written(tokenizer: Tokenizer, request: GenerationRequest, written: Any, *, computed: int) -> Written:
    """What is new of one sample; `computed` tokens of the prompt count with it."""
    finish: FinishReason | None = None
    if written.finish_reason is not None:
        finish = "length" if written.finish_reason == "length" else "stop"
    ids = tuple(written.token_ids)
    logprobs = None
    if request.logprobs is not None:
        logprobs = tuple(
            _logprob(tokenizer, token, row, request.logprobs) for token, row in zip(ids, written.logprobs, strict=True)
        )
    return Written(ids, finish, logprobs, written.index, computed)


def _logprob(tokenizer: Tokenizer, token: int, row: dict[int, Any], top: int) -> TokenLogprob:
    best = sorted(row.items(), key=lambda pair: (-pair[1].logprob, pair[1].rank))[:top]
    spell = {number: tokenizer.decode([number], skip_special=False) for number in (token, *(n for n, _ in best))}
    alternatives: Sequence[tuple[int, str, float]] = [(n, spell[n], found.logprob) for n, found in best]
    return TokenLogprob(token, spell[token], row[token].logprob, tuple(alternatives))
