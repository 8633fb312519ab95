"""POST /v1/eval/loglikelihood and /v1/eval/loglikelihood/rolling: evalkit's own scoring, for sessions elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from evalkit.errors import RequestError
from evalkit.requests import LoglikelihoodOutput, LoglikelihoodRequest, Output, RollingLoglikelihoodRequest
from evalkit.requests import Request as Asked
from evalkit_http.openai.answers import finite, json_response
from evalkit_http.openai.served import Ready, Served, outputs_of
from evalkit_http.openai.wire import PairItem, PairsBody, RollingBody, TextItem

router = APIRouter()


@router.post("/v1/eval/loglikelihood")
async def loglikelihood(request: Request, served: Ready, body: PairsBody) -> Response:
    """Score each continuation given its context, as `evalkit run` would. One that cannot be scored has its `error`."""
    return await _scored(request, served, await asyncio.to_thread(_pairs, served, body.requests))


@router.post("/v1/eval/loglikelihood/rolling")
async def rolling(request: Request, served: Ready, body: RollingBody) -> Response:
    """Score every token of each text once."""
    return await _scored(request, served, await asyncio.to_thread(_rolling, served, body.requests))


async def _scored(request: Request, served: Served, asked: list[Asked | str]) -> Response:
    """The results in order; an item that is a text is what is wrong with its request."""
    call = served.ask([item for item in asked if not isinstance(item, str)])
    outputs = iter(await outputs_of(call, request, failed=True))
    results = [_result(LoglikelihoodOutput(error=item) if isinstance(item, str) else next(outputs)) for item in asked]
    return json_response({"object": "list", "model": served.name, "results": results})


def _pairs(served: Served, items: list[PairItem]) -> list[Asked | str]:
    return [_pair(served, item) for item in items]


def _pair(served: Served, item: PairItem) -> Asked | str:
    if item.context_ids is None or item.continuation_ids is None:
        return LoglikelihoodRequest(item.context or "", item.continuation or "")
    ids = tuple(item.context_ids), tuple(item.continuation_ids)
    if problem := _problem(served, (*ids[0], *ids[1])):
        return problem
    return LoglikelihoodRequest(
        item.context or "", item.continuation or "", context_ids=ids[0], continuation_ids=ids[1]
    )


def _rolling(served: Served, items: list[TextItem]) -> list[Asked | str]:
    found: list[Asked | str] = []
    for item in items:
        ids = None if item.input_ids is None else tuple(item.input_ids)
        problem = _problem(served, ids or ())
        found.append(problem or RollingLoglikelihoodRequest(item.text or "", input_ids=ids))
    return found


def _problem(served: Served, ids: tuple[int, ...]) -> str | None:
    try:
        if ids:
            served.check_ids(ids, "token ids")
    except RequestError as error:
        return str(error)
    return None


def _result(output: Output) -> dict[str, Any]:
    assert not hasattr(output, "text")
    values = output.token_logprobs
    found = {
        "logprob": finite(output.logprob),
        "token_count": output.token_count,
        "token_logprobs": None if values is None else [finite(value) for value in values],
        "error": output.error,
        "notes": list(output.notes),
    }
    return {**found, "is_greedy": output.is_greedy} if isinstance(output, LoglikelihoodOutput) else found
