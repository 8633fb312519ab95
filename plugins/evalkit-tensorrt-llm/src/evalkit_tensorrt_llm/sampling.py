"""What to ask TensorRT LLM for, as fields of its SamplingParams."""

from __future__ import annotations

from typing import Any

from evalkit.errors import RequestError
from evalkit.pumped import SEED_STEP
from evalkit.requests import GenerationRequest
from evalkit.scoring.prompts import Prompt

SEED_IGNORED = "the seed may not have counted: only --engine-arg sampler_type=TRTLLMSampler is known to heed it"
PLAIN = {"detokenize": False, "add_special_tokens": False}


def scoring_params(prompt: Prompt, end: int) -> dict[str, Any]:
    """To score a prompt: one token is written, and not looked at."""
    asked: dict[str, Any] = {"max_tokens": 1, "end_id": end, **PLAIN}
    if prompt.scored:
        return asked | {"return_context_logits": True}
    return asked | ({"return_generation_logits": True} if prompt.next_ids else {})


def writing_params(request: GenerationRequest, *, sample: int, ends: frozenset[int], sampler: str) -> dict[str, Any]:
    """To write one sample of a request. Raises RequestError for what the library cannot do."""
    if request.num_beams > 1:
        raise RequestError("engine 'tensorrt-llm' has no beam search here: ask for num_beams 1, or use another engine")
    if request.is_sampled and request.min_p > 0 and sampler != "TRTLLMSampler":
        raise RequestError("min_p needs --engine-arg sampler_type=TRTLLMSampler: TorchSampler would pass over it")
    first, *others = sorted(ends) or [-1]
    asked: dict[str, Any] = {"max_tokens": request.max_new_tokens, "end_id": first, **PLAIN}
    if others:
        # Kept in the text's tokens, as the first one is.
        asked |= {"stop_token_ids": others, "include_stop_str_in_output": True}
    if request.min_new_tokens:
        asked["min_tokens"] = request.min_new_tokens
    if request.logprobs is not None:
        # Asked for none beside the written token, it would say nothing at all.
        asked["logprobs"] = max(request.logprobs, 1)
    # Without any of these it is greedy.
    if request.is_sampled:
        asked |= {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
        asked |= {"min_p": request.min_p} if request.min_p else {}
        asked |= {} if request.seed is None else {"seed": (request.seed + sample * SEED_STEP) % (1 << 63)}
    return asked
