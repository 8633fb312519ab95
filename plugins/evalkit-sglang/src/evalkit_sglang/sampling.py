"""A generation request in SGLang's words."""

from __future__ import annotations

from typing import Any

from evalkit.errors import RequestError
from evalkit.pumped import SEED_STEP
from evalkit.requests import GenerationRequest

SEED_IGNORED = "the seed did not count: give --engine-arg enable_deterministic_inference=true"


def sampling_params(
    request: GenerationRequest, *, sample: int = 0, ends: frozenset[int] = frozenset()
) -> dict[str, Any]:
    """SGLang's sampling parameters for one sample. Raises RequestError for what it cannot do."""
    if request.num_beams > 1:
        raise RequestError("engine 'sglang' has no beam search here: ask for num_beams 1, or use another engine")
    found: dict[str, Any] = {
        "max_new_tokens": request.max_new_tokens,
        "min_new_tokens": request.min_new_tokens,
        "temperature": request.temperature,
        "skip_special_tokens": False,
    }
    if ends:
        found["stop_token_ids"] = sorted(ends)
    # A stop string that comes too early must not end the text, and SGLang would let it.
    if request.stop and not request.min_new_tokens:
        found["stop"] = [stop for stop in request.stop if stop]
    if request.is_sampled:
        found |= {"top_p": request.top_p, "top_k": request.top_k or -1, "min_p": request.min_p}
        if request.seed is not None:
            found["sampling_seed"] = (request.seed + sample * SEED_STEP) % (1 << 63)
    return found
