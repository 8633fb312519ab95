"""POST /v1/completions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from evalkit.errors import RequestError
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    TokenLogprob,
)
from evalkit.requests import Request as Asked
from evalkit.scoring import cut_at_stops
from evalkit_http.openai.answers import json_response, new_id, samples, usage
from evalkit_http.openai.logprobs import Scored, completion_logprobs, scored_answer, scored_prompt
from evalkit_http.openai.served import Ready, Served, outputs_of
from evalkit_http.openai.streaming import Delta, deltas, event_stream
from evalkit_http.openai.values import sampling_values
from evalkit_http.openai.wire import CompletionBody

router = APIRouter()
STAND_IN = 0
"""Scored behind a prompt, so that what the model would say there is known from the same pass."""


@dataclass(slots=True)
class Prompt:
    """A prompt, and which of the call's requests are its own."""

    ids: tuple[int, ...]
    text: str
    """As it is echoed."""
    scoring: int | None = None
    generation: int | None = None


@dataclass(slots=True)
class Plan:
    """What a body asks of the session."""

    body: CompletionBody
    prompts: list[Prompt]
    requests: list[Asked] = field(default_factory=list)

    def add(self, request: Asked) -> int:
        """Ask this too; its place."""
        self.requests.append(request)
        return len(self.requests) - 1

    @property
    def echoes_scores(self) -> bool:
        """Whether the prompts' own log-probabilities are wanted."""
        return self.body.echo and self.body.logprobs is not None

    @property
    def peeks(self) -> bool:
        """Whether scoring the prompt tells the one greedy token behind it, as lm-evaluation-harness asks."""
        body = self.body
        return self.echoes_scores and body.max_tokens == 1 and body.temperature == 0 and not body.min_tokens


@router.post("/v1/completions")
async def completions(request: Request, served: Ready, body: CompletionBody) -> Response:
    """Continue each prompt; with `echo` and `logprobs`, score it too."""
    plan = await asyncio.to_thread(make_plan, served, body)
    head = {"id": new_id("cmpl"), "created": int(time.time()), "model": served.name}
    live = body.stream and not plan.echoes_scores
    call = served.ask(plan.requests, live=live)
    if live:
        return event_stream(call, _chunks(served, plan, head, deltas(call)))
    outputs = await outputs_of(call, request)
    choices, produced = await asyncio.to_thread(_choices, served, plan, outputs)
    tokens = usage(sum(len(prompt.ids) for prompt in plan.prompts), produced)
    answer = {**head, "object": "text_completion", "choices": choices, "usage": tokens}
    if body.stream:
        return event_stream(call, _whole(answer, body.stream_options.include_usage))
    return json_response(answer)


def make_plan(served: Served, body: CompletionBody) -> Plan:
    """Check a body, and say what to ask. Raises RequestError."""
    plan = Plan(body, _prompts(served, body))
    for prompt in plan.prompts:
        if served.has_tokens:
            served.check_room(len(prompt.ids), body.max_tokens, "max_tokens")
        if plan.echoes_scores:
            if served.is_encoder_decoder:
                raise RequestError("echo with logprobs needs a decoder-only model: score with /v1/eval/loglikelihood")
            _add_scoring(served, plan, prompt)
        if body.max_tokens and not plan.peeks:
            _add_generation(served, plan, prompt)
    return plan


def _prompts(served: Served, body: CompletionBody) -> list[Prompt]:
    found = []
    for given in body.prompts:
        if isinstance(given, str) and not served.has_tokens:
            found.append(Prompt((), given))
        elif isinstance(given, str):
            ids = served.texts.encode([given], special=body.add_special_tokens)[0]
            found.append(Prompt(ids, _echoed(served, given, ids) if body.echo else given))
        else:
            served.check_ids(given, "prompt")
            found.append(Prompt(tuple(given), served.texts.decode(given) if body.echo else ""))
    return found


def _echoed(served: Served, given: str, ids: Sequence[int]) -> str:
    """The text of a prompt's tokens, which may begin with a token that the tokenizer adds."""
    decoded = served.texts.decode(ids)
    return given if decoded.endswith(given) else decoded


def _fed(served: Served, prompt: Prompt) -> tuple[int, ...]:
    return prompt.ids or (served.texts.tokenizer.prefix_token_id,)


def _add_scoring(served: Served, plan: Plan, prompt: Prompt) -> None:
    fed, most = _fed(served, prompt), max(plan.body.logprobs or 0, 1)
    scored = (*fed[1:], STAND_IN) if plan.peeks else fed[1:]
    if scored:
        prompt.scoring = plan.add(
            LoglikelihoodRequest("", "", context_ids=fed[:1], continuation_ids=scored, logprobs=most)
        )


def _add_generation(served: Served, plan: Plan, prompt: Prompt) -> None:
    body = plan.body
    given: dict[str, Any] = {"input_ids": _fed(served, prompt)} if served.has_tokens else {"prompt": prompt.text}
    prompt.generation = plan.add(
        GenerationRequest(**given, max_new_tokens=body.max_tokens, logprobs=body.logprobs, **sampling_values(body))
    )


# ── the whole answer ────────────────────────────────────────────────────────────────────────────────────
def _choices(served: Served, plan: Plan, outputs: list[Any]) -> tuple[list[dict[str, Any]], list[GenerationOutput]]:
    """The choices, prompt by prompt, and the samples in them."""
    choices: list[dict[str, Any]] = []
    produced: list[GenerationOutput] = []
    for prompt in plan.prompts:
        scores = None if prompt.scoring is None else outputs[prompt.scoring]
        for sample in _samples(served, plan, prompt, scores, outputs):
            choices.append(_choice(served, plan, prompt, scores, sample, len(choices)))
            produced.append(sample)
    return choices, produced


def _samples(
    served: Served, plan: Plan, prompt: Prompt, scores: LoglikelihoodOutput | None, outputs: list[Any]
) -> tuple[GenerationOutput, ...]:
    if prompt.generation is not None:
        return samples(outputs[prompt.generation])
    if plan.peeks and scores is not None:
        return (_peeked(served, plan, scores),) * plan.body.n
    return (GenerationOutput(finish_reason="length"),) * plan.body.n


def _peeked(served: Served, plan: Plan, scores: LoglikelihoodOutput) -> GenerationOutput:
    """The one greedy token behind a prompt."""
    assert scores.top_logprobs
    top = scores.top_logprobs[-1]
    token, logprob = top[0]
    text = served.texts.decode([token], skip_special=True)
    cut = cut_at_stops(text, plan.body.stops)
    stopped = token in served.texts.tokenizer.eos_token_ids or cut != text
    spelled = tuple((number, served.texts.spell(number), value) for number, value in top)
    entry = TokenLogprob(token, served.texts.spell(token), logprob, spelled)
    return GenerationOutput(cut, (token,), "stop" if stopped else "length", logprobs=(entry,))


def _choice(
    served: Served,
    plan: Plan,
    prompt: Prompt,
    scores: LoglikelihoodOutput | None,
    sample: GenerationOutput,
    index: int,
) -> dict[str, Any]:
    body, echoed = plan.body, prompt.text if plan.body.echo else ""
    found = None
    if body.logprobs is not None:
        entries: list[Scored | int] = list(prompt.ids[:1]) if body.echo else []
        if body.echo and scores is not None:
            entries += scored_prompt(prompt.ids, scores)
        entries += scored_answer(sample)
        # Text that the tokenizer put in front of the prompt is no part of the echo.
        ahead = len(served.texts.decode(prompt.ids)) - len(echoed) if echoed else 0
        found = completion_logprobs(served.texts, entries, body.logprobs)
        found["text_offset"] = [max(0, offset - ahead) for offset in found["text_offset"]]
    return {"index": index, "text": echoed + sample.text, "logprobs": found, "finish_reason": sample.finish_reason}


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────────
async def _whole(answer: dict[str, Any], with_usage: bool) -> Any:
    """An answer that is there already, as a stream: a chunk a choice."""
    for choice in answer["choices"]:
        yield {**answer, "choices": [choice], "usage": None}
    if with_usage:
        yield {**answer, "choices": []}


async def _chunks(served: Served, plan: Plan, head: dict[str, Any], parts: Any) -> Any:
    body = plan.body
    chunk = {**head, "object": "text_completion"}
    own = {prompt.generation: number for number, prompt in enumerate(plan.prompts)}
    lengths: dict[int, int] = {}
    produced: list[GenerationOutput] = []
    if body.echo or not plan.requests:
        for index in range(len(plan.prompts) * body.n):
            text = plan.prompts[index // body.n].text if body.echo else ""
            finish = None if plan.requests else "length"
            lengths[index] = len(text)
            yield {**chunk, "choices": [{"index": index, "text": text, "logprobs": None, "finish_reason": finish}]}
    async for delta in parts:
        index = own[delta.request] * body.n + delta.sample
        start = lengths.get(index, 0)
        lengths[index] = start + len(delta.text)
        if delta.finish:
            produced.append(delta.whole)
        yield {**chunk, "choices": [_piece(served, body, delta, index, start)]}
    if body.stream_options.include_usage:
        tokens = usage(sum(len(prompt.ids) for prompt in plan.prompts), produced)
        yield {**chunk, "choices": [], "usage": tokens}


def _piece(served: Served, body: CompletionBody, delta: Delta, index: int, start: int) -> dict[str, Any]:
    found = None
    if body.logprobs is not None:
        entries = scored_answer(GenerationOutput(logprobs=delta.logprobs))
        found = completion_logprobs(served.texts, entries, body.logprobs, start=start, before=delta.before)
    return {"index": index, "text": delta.text, "logprobs": found, "finish_reason": delta.finish}
