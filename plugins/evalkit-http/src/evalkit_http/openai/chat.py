"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from evalkit.errors import RequestError
from evalkit.requests import GenerationOutput, GenerationRequest, TokenLogprob
from evalkit_http.openai.answers import finite, json_response, new_id, samples, usage
from evalkit_http.openai.served import Ready, Served, outputs_of
from evalkit_http.openai.streaming import Delta, deltas, event_stream
from evalkit_http.openai.texts import CUT
from evalkit_http.openai.values import sampling_values
from evalkit_http.openai.wire import ChatBody

router = APIRouter()
DEFAULT_ANSWER = 1024
"""Tokens of an answer where neither the client nor the engine says how long it may be."""


@router.post("/v1/chat/completions")
async def chat_completions(request: Request, served: Ready, body: ChatBody) -> Response:
    """Answer a conversation through the model's chat template."""
    asked = await asyncio.to_thread(make_request, served, body)
    head = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": served.name}
    call = served.ask([asked], live=body.stream)
    if body.stream:
        return event_stream(call, _chunks(body, asked, head, deltas(call)))
    (output,) = await outputs_of(call, request)
    choices = [_choice(body, sample, index) for index, sample in enumerate(samples(output))]
    tokens = usage(_prompt_tokens(asked, output), samples(output))
    return json_response({**head, "object": "chat.completion", "choices": choices, "usage": tokens})


def make_request(served: Served, body: ChatBody) -> GenerationRequest:
    """Check a body, and say what to ask. Raises RequestError."""
    messages = [_message(number, message) for number, message in enumerate(body.messages)]
    tools = [_tool(tool) for tool in body.tools] if body.tool_choice != "none" else []
    values = {**sampling_values(body), "logprobs": body.top_logprobs if body.logprobs else None}
    asked = body.max_completion_tokens or body.max_tokens
    if not served.has_tokens:
        variables = _variables(body)
        given: dict[str, Any] = {"messages": messages, "tools": tools or None, "chat_template_kwargs": variables}
        return GenerationRequest(**given, max_new_tokens=asked or DEFAULT_ANSWER, **values)
    ids = _prompt(served, body, messages, tools)
    # OpenAI's default: as long as the context allows.
    limit = served.max_length
    length = asked or (max(1, limit - len(ids)) if limit is not None else DEFAULT_ANSWER)
    served.check_room(len(ids), length, "max_completion_tokens" if body.max_completion_tokens else "max_tokens")
    if body.min_tokens > length:
        raise RequestError(f"min_tokens is {body.min_tokens}, more than the answer's {length} tokens")
    return GenerationRequest(input_ids=ids, max_new_tokens=length, **values)


def _variables(body: ChatBody) -> dict[str, Any]:
    """What a client sets in the template, but for what has fields of its own."""
    return {name: value for name, value in body.chat_template_kwargs.items() if name not in RESERVED}


def _prompt(
    served: Served, body: ChatBody, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> tuple[int, ...]:
    try:
        text = served.session.apply_chat_template(
            messages, tools=tools or None, add_generation_prompt=body.add_generation_prompt, **_variables(body)
        )
    except RequestError as error:
        # The engine's advice is for the command line.
        raise RequestError(str(error).partition(". Leave out")[0]) from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RequestError(f"the chat template cannot use these messages: {error}") from error
    return served.texts.encode([text])[0] or (served.texts.tokenizer.prefix_token_id,)


RESERVED = ("messages", "tools", "add_generation_prompt", "conversation", "chat_template", "tokenize")
"""Names that a client's template variables cannot have: they would replace the conversation, or the template."""


# ── messages ────────────────────────────────────────────────────────────────────────────────────────────
def _message(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates read it: its content a text, the arguments of its calls an object."""
    where = f"messages[{number}]"
    if not isinstance(message.get("role"), str):
        raise RequestError(f"{where} has no role: 'system', 'user', 'assistant' or 'tool'")
    found = {**message, "content": _content(where, message.get("content"))}
    calls = message.get("tool_calls")
    if calls is None:
        found.pop("tool_calls", None)
    elif not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RequestError(f"{where}.tool_calls is a list of objects")
    else:
        found["tool_calls"] = [_call(call) for call in calls]
    return found


def _content(where: str, content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise RequestError(f"{where}.content is a string or a list of parts")
    return "\n".join(_part(f"{where}.content[{number}]", part) for number, part in enumerate(content))


def _part(where: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        raise RequestError(f"{where} is of type {kind!r}: this server reads parts of type 'text' only")
    if not isinstance(part.get("text"), str):
        raise RequestError(f"{where}.text is a string")
    text: str = part["text"]
    return text


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        arguments = function["arguments"]
    return {**call, "function": {**function, "arguments": arguments}}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
        raise RequestError("a tool is {'type': 'function', 'function': {...}}")
    return dict(tool)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────
def _choice(body: ChatBody, sample: GenerationOutput, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": sample.text, "refusal": None},
        "logprobs": _logprobs(sample.logprobs or ()) if body.logprobs else None,
        "finish_reason": sample.finish_reason,
    }


def _logprobs(entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    content = [
        {**_token(entry.token, entry.logprob), "top_logprobs": [_token(text, value) for _, text, value in entry.top]}
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    # A part of a character has bytes that its text does not tell.
    known = None if CUT in text else list(text.encode("utf-8", "replace"))
    return {"token": text, "logprob": finite(logprob), "bytes": known}


def _prompt_tokens(asked: GenerationRequest, output: GenerationOutput) -> int:
    return len(asked.input_ids or ()) or (output.usage.prompt_tokens if output.usage else 0)


async def _chunks(
    body: ChatBody, asked: GenerationRequest, head: dict[str, Any], parts: AsyncIterator[Delta]
) -> AsyncIterator[dict[str, Any]]:
    chunk = {
        **head,
        "object": "chat.completion.chunk",
        **({"usage": None} if body.stream_options.include_usage else {}),
    }
    for index in range(body.n):
        yield {**chunk, "choices": [_piece(index, {"role": "assistant", "content": ""}, None, None)]}
    produced: list[GenerationOutput] = []
    async for delta in parts:
        logprobs = _logprobs(delta.logprobs) if body.logprobs and delta.logprobs else None
        if delta.text or logprobs:
            yield {**chunk, "choices": [_piece(delta.sample, {"content": delta.text}, logprobs, None)]}
        if delta.finish:
            produced.append(delta.whole)
            yield {**chunk, "choices": [_piece(delta.sample, {}, None, delta.finish)]}
    if body.stream_options.include_usage:
        yield {**chunk, "choices": [], "usage": usage(_prompt_tokens(asked, produced[0]), produced)}


def _piece(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
