"""From a body's sampling values to a request's."""

from __future__ import annotations

import secrets
from typing import Any

from evalkit_http.openai.wire import Sampling

GREEDY_BELOW = 1e-5
"""A lower temperature would overflow; the likeliest token is all that it could give."""


def sampling_values(body: Sampling) -> dict[str, Any]:
    """Fields of GenerationRequest, all but the prompt, its length and logprobs."""
    temperature = body.temperature if body.temperature >= GREEDY_BELOW else 0.0
    return {
        "stop": body.stops,
        "temperature": temperature,
        "top_p": body.top_p,
        "top_k": max(body.top_k, 0),
        "min_p": body.min_p,
        "seed": _seed(body) if temperature else None,
        "n": body.n,
        "min_new_tokens": body.min_tokens,
    }


def _seed(body: Sampling) -> int:
    # Drawn here where the client gives none: hosts that work in lock-step must draw alike.
    return secrets.randbits(48) if body.seed is None else body.seed % 2**63
