"""Generation requests as OpenAI's JSON, and its answers as outputs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.errors import RequestError
from evalkit.requests import FinishReason, GenerationOutput, GenerationRequest, TokenLogprob, Usage
from evalkit.scoring.stops import cut_at_stops

MOST_STOPS = 4
"""Stop strings that OpenAI's API takes; what is behind any other is cut off here."""
UNKNOWN_ID = -1
"""OpenAI's API names tokens by their text."""
REASONS: dict[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "stop_sequence": "stop", "tool_calls": "stop", "function_call": "stop",
    "length": "length", "max_tokens": "length",
}  # fmt: skip
BROKEN = ("abort", "error", "cancelled")
"""What servers call the end of a text that they could not finish."""
OWN_FIELDS = {"top_k": "top_k", "min_p": "min_p", "min_new_tokens": "min_tokens"}
"""Values that OpenAI's API lacks, as the servers that take them call them."""


def check(request: GenerationRequest) -> None:
    """Raise RequestError for what cannot be asked for over this API."""
    if sum(given is not None for given in (request.prompt, request.messages, request.input_ids)) != 1:
        raise RequestError("a generation request has exactly one of prompt, messages and input_ids")
    least = {"max_new_tokens": 1, "min_new_tokens": 0, "n": 1, "temperature": 0}
    for name, low in least.items():
        if getattr(request, name) < low:
            raise RequestError(f"{name} is {getattr(request, name)}, and must be {low} or more")
    if request.num_beams > 1:
        raise RequestError("OpenAI's API has no beam search. Leave out num_beams, or choose another engine")


def own_fields(request: GenerationRequest) -> dict[str, Any]:
    """The values of a request that OpenAI's API lacks, under the names that servers give them."""
    return {wire: value for name, wire in OWN_FIELDS.items() if (value := getattr(request, name))}


def sampling(request: GenerationRequest, seed: int | None) -> dict[str, Any]:
    """What both routes take."""
    body: dict[str, Any] = {"temperature": request.temperature, **own_fields(request)}
    if request.top_p != 1:
        body["top_p"] = request.top_p
    if stops := [stop for stop in request.stop if stop][:MOST_STOPS]:
        body["stop"] = stops
    chosen = seed if request.seed is None else request.seed
    if chosen is not None:
        body["seed"] = chosen
    if request.n > 1:
        body["n"] = request.n
    return body


def completion_body(request: GenerationRequest, prompt: str | Sequence[int], seed: int | None) -> dict[str, Any]:
    """The body for /completions."""
    asked = prompt if isinstance(prompt, str) else list(prompt)
    body = {"prompt": asked, "max_tokens": request.max_new_tokens, **sampling(request, seed)}
    return body if request.logprobs is None else {**body, "logprobs": request.logprobs}


def chat_body(request: GenerationRequest, seed: int | None, limit_field: str) -> dict[str, Any]:
    """The body for /chat/completions; a prompt becomes one user message."""
    messages = request.messages if request.messages is not None else [{"role": "user", "content": request.prompt}]
    body = {"messages": [dict(message) for message in messages], limit_field: request.max_new_tokens}
    body |= sampling(request, seed)
    if request.tools:
        body["tools"] = [dict(tool) for tool in request.tools]
    if request.chat_template_kwargs:
        body["chat_template_kwargs"] = dict(request.chat_template_kwargs)
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    return body


def read_answer(answer: Any, request: GenerationRequest) -> list[GenerationOutput]:
    """The output of each choice, in order. Raises ValueError where the answer is not one."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, Mapping) for choice in choices):
        raise ValueError("the answer has no choices")
    usage = _usage(answer.get("usage"))
    ordered = sorted(choices, key=lambda choice: choice.get("index") or 0)
    return [_read_choice(choice, request, usage if len(ordered) == 1 else None) for choice in ordered]


def _read_choice(choice: Mapping[str, Any], request: GenerationRequest, usage: Usage | None) -> GenerationOutput:
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        return GenerationOutput(finish_reason="error", error="the server's content filter held the answer back")
    if reason in BROKEN:
        raise ValueError(f"the server broke the answer off (finish_reason {reason!r})")
    message = choice.get("message")
    text, metadata = _message_text(message) if isinstance(message, Mapping) else (choice.get("text"), {})
    if not isinstance(text, str):
        raise ValueError("the answer has no text")
    cut = cut_at_stops(text, request.stop)
    finish = "stop" if len(cut) < len(text) else REASONS.get(str(reason), "stop")
    ids = choice.get("token_ids")
    return GenerationOutput(
        cut,
        tuple(ids) if isinstance(ids, list) else (),
        finish,
        logprobs=_logprobs(choice.get("logprobs")) if request.logprobs is not None else None,
        usage=usage,
        metadata=metadata,
    )


def _message_text(message: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A message's text; its calls of tools and its thoughts are metadata."""
    names = ("tool_calls", "reasoning", "reasoning_content", "refusal")
    metadata = {name: message[name] for name in names if message.get(name)}
    text = message.get("content")
    # Calls, thoughts that took all tokens and a refusal are answers, which have no text.
    return ("" if text is None and metadata else text), metadata


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, Mapping):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(prompt, completion)


def _logprobs(found: Any) -> tuple[TokenLogprob, ...] | None:
    if not isinstance(found, Mapping):
        return None
    if isinstance(content := found.get("content"), list):
        return tuple(
            TokenLogprob(
                UNKNOWN_ID,
                item["token"],
                item["logprob"],
                tuple((UNKNOWN_ID, top["token"], top["logprob"]) for top in item.get("top_logprobs") or ()),
            )
            for item in content
        )
    parts = [found.get(name) or () for name in ("tokens", "token_logprobs", "top_logprobs")]
    return tuple(
        TokenLogprob(UNKNOWN_ID, token, logprob, tuple((UNKNOWN_ID, *pair) for pair in (top or {}).items()))
        for token, logprob, top in itertools.zip_longest(*parts)
        if token is not None and logprob is not None
    )
