"""What TensorRT LLM answers, in evalkit's terms: scores from logits, and tokens with their log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evalkit.errors import RequestError
from evalkit.requests import TokenLogprob
from evalkit.scoring.logits import Floats, log_softmax, target_scores
from evalkit.scoring.prompts import NOTHING, Prompt, PromptScores


def prompt_scores(prompt: Prompt, reply: Any) -> PromptScores:
    """The scores in an answer. Raises RequestError where it lacks logits that were asked for."""
    computed = len(prompt.ids) - getattr(reply, "cached_tokens", 0)
    if not (prompt.scored or prompt.next_ids):
        return PromptScores(computed=computed)
    logits = _context_logits(prompt, reply) if prompt.scored else _next_logits(reply)
    scored = NOTHING
    if prompt.scored:
        rows = np.arange(prompt.scored)
        targets = np.array(prompt.ids[prompt.start :], np.int32)
        scored = target_scores(logits[:-1], rows, targets, prompt.tops).part(0, prompt.scored)
    last = log_softmax(logits[-1:])[0]
    logprobs = tuple(float(last[token]) for token in prompt.next_ids)
    return PromptScores(scored, logprobs, int(last.argmax()), computed)


def _context_logits(prompt: Prompt, reply: Any) -> Floats:
    """Logits behind each token from the one before the first scored one on, [scored + 1, vocabulary]."""
    found = reply.context_logits
    size = 0 if found is None else found.shape[-2]
    if size != len(prompt.ids):
        # Blocks that are reused have no logits, and what is left would be taken for those of other tokens.
        raise RequestError(
            f"tensorrt-llm gave logits of {size} of {len(prompt.ids)} tokens, because it reused part of its cache. "
            "Give --engine-arg enable_block_reuse=false"
        )
    return _numpy(found.reshape(size, -1)[prompt.start - 1 :])


def _next_logits(reply: Any) -> Floats:
    """Logits behind the prompt, [1, vocabulary]."""
    found = reply.outputs[0].generation_logits
    if found is None:
        raise RequestError("tensorrt-llm gave no logits of what it wrote. Is its version known to work?")
    return _numpy(found.reshape(-1, found.shape[-1])[:1])


def _numpy(tensor: Any) -> Floats:
    found: Floats = tensor.float().cpu().numpy()
    return found


def token_logprobs(
    output: Any, first: int, last: int, tops: int, spell: Callable[[Sequence[int]], str]
) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of the written tokens `first` to `last`, with the `tops` likeliest beside each."""
    found = []
    for token, place in zip(output.token_ids[first:last], output.logprobs[first:last], strict=True):
        likely = sorted(((key, value.logprob) for key, value in place.items()), key=lambda pair: -pair[1])[:tops]
        top = tuple((key, spell([key]), logprob) for key, logprob in likely)
        found.append(TokenLogprob(token, spell([token]), place[token].logprob, top))
    return tuple(found)
