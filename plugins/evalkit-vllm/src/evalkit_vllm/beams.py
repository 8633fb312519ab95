"""Beam search, which vLLM does outside of its scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evalkit.errors import RequestError
from evalkit.prompts import Decode, Written
from evalkit.requests import GenerationRequest
from evalkit.scoring import Tokenizer
from evalkit_vllm.library import BeamSearchParams


def check(request: GenerationRequest) -> None:
    """Raise RequestError for what vLLM's beam search does not do."""
    for name, is_asked in (
        ("a temperature", request.is_sampled),
        ("log-probabilities", request.logprobs is not None),
        ("min_new_tokens", request.min_new_tokens > 0),
    ):
        if is_asked:
            raise RequestError(f"vLLM's beam search does not take {name}. Leave it out, or ask for num_beams 1")


def search(llm: Any, work: Decode, tokenizer: Tokenizer, lora: Any) -> Iterator[Written]:
    """The best texts, as many as the request wants; stop strings are cut off afterwards."""
    request, prompt = work.item.request, list(work.item.prompt)
    params = BeamSearchParams(beam_width=request.num_beams, max_tokens=request.max_new_tokens)
    (found,) = llm.beam_search([{"prompt_token_ids": prompt}], params, lora_request=lora)
    for sample, sequence in enumerate(found.sequences[: request.n]):
        ids = tuple(sequence.tokens[len(prompt) :])
        text = tokenizer.decode(ids, skip_special=False)
        ended = ids[-1:] and ids[-1] in tokenizer.eos_token_ids
        stopped = ended or any(stop in text for stop in request.stop if stop)
        yield Written(ids, "stop" if stopped else "length", None, sample, len(ids) * request.num_beams)
