"""Answers that are sent as they grow, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import HTTPException
from sse_starlette import EventSourceResponse

from evalkit.requests import GenerationOutput, GenerationPart, TokenLogprob
from evalkit_http.openai.answers import samples, to_json
from evalkit_http.openai.served import Call
from evalkit_http.security.errors import openai_body

DONE = "[DONE]"
GRACE_SECONDS = 25.0
"""For streams that are under way when the server is stopped."""
TAIL = 4
"""Tokens over which a character may be spread."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new of a sample. The last one of a sample has its `finish`, and the `whole` sample."""

    request: int
    sample: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    before: Sequence[int] = ()
    """The last tokens that were sent before these."""
    finish: str | None = None
    whole: GenerationOutput = field(default_factory=GenerationOutput)


@dataclass(slots=True)
class _Sent:
    characters: int = 0
    tokens: int = 0
    tail: tuple[int, ...] = ()


async def deltas(call: Call) -> AsyncIterator[Delta]:
    """What each sample grows by. The sum of a sample's deltas is the sample, whether its engine gave parts or not."""
    sent: dict[tuple[int, int], _Sent] = {}
    async for request, event in call.events():
        if isinstance(event, GenerationPart):
            one = sent.setdefault((request, event.sample), _Sent())
            yield Delta(request, event.sample, event.text, tuple(event.logprobs or ()), one.tail)
            one.characters += len(event.text)
            one.tokens += len(event.token_ids)
            one.tail = (*one.tail, *event.token_ids)[-TAIL:]
        else:
            assert isinstance(event, GenerationOutput)
            for number, sample in enumerate(samples(event)):
                one = sent.setdefault((request, number), _Sent())
                text, logprobs = sample.text[one.characters :], (sample.logprobs or ())[one.tokens :]
                yield Delta(request, number, text, tuple(logprobs), one.tail, sample.finish_reason, sample)


def event_stream(call: Call, chunks: AsyncIterator[dict[str, Any]]) -> EventSourceResponse:
    """Chunks as events, then `[DONE]`. A client that goes takes its requests out of the line."""
    return EventSourceResponse(
        _events(call, chunks),
        sep="\n",  # simple clients split at two of these
        shutdown_event=anyio.Event(),
        shutdown_grace_period=GRACE_SECONDS,
    )


async def _events(call: Call, chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, str]]:
    try:
        async for chunk in chunks:
            yield {"data": to_json(chunk)}
    except HTTPException as error:
        yield {"data": to_json(openai_body(error.status_code, str(error.detail)))}
    finally:
        call.withdraw()
    yield {"data": DONE}
