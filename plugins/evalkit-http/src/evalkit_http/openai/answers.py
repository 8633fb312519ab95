"""What completions and chats share in their answers: ids, usage, JSON, and outputs as samples."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

from fastapi import Response

from evalkit.requests import GenerationOutput

LEAST_LOGPROB = -9999.0
"""What OpenAI writes for a token that is as good as impossible: JSON has no infinity."""


def json_response(content: Any) -> Response:
    """A response of plain data, as it is: FastAPI's own way would check all of it again."""
    return Response(to_json(content), media_type="application/json")


def to_json(content: Any) -> str:
    """JSON in ASCII, so that half a surrogate pair in a text does no harm."""
    return json.dumps(content, separators=(",", ":"))


def new_id(kind: str) -> str:
    """An answer's id."""
    return f"{kind}-{uuid.uuid4().hex}"


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)


def samples(output: GenerationOutput) -> tuple[GenerationOutput, ...]:
    """All samples of a request, in order."""
    return (output, *output.alternatives)


def usage(prompt_tokens: int, produced: Iterable[GenerationOutput]) -> dict[str, int]:
    """Tokens of an answer."""
    completion = sum(len(sample.token_ids) for sample in produced)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
    }
