"""Read the prompt's log-probabilities out of an answer to `echo`, and find where the continuation begins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CUT_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True)
class Echoed:
    """The tokens of a prompt: text, log-probability (None for the first), and whether each is the likeliest.

    `greedy` is None where the server names no other token than the prompt's own.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    greedy: tuple[bool | None, ...]


def echo_body(prompt: str | Sequence[int]) -> dict[str, Any]:
    """Ask for a prompt's log-probabilities; a single token is generated, as not every server knows none."""
    asked = prompt if isinstance(prompt, str) else list(prompt)
    return {"prompt": asked, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}


def read_echo(answer: Any, ids: Sequence[int] | None = None) -> Echoed:
    """The prompt's tokens in an answer; `ids` are the prompt's, where it was sent so. Raises ValueError."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError("the answer has no choices")
    choice = choices[0]
    found = choice.get("logprobs")
    values = found.get("token_logprobs") if isinstance(found, Mapping) else None
    if not isinstance(values, list):
        raise ValueError("it gives no log-probabilities of the prompt")
    tokens = list(found.get("tokens") or [])
    tops = list(found.get("top_logprobs") or [None] * len(values))
    if not len(values) == len(tokens) == len(tops):
        raise ValueError("its lists of tokens and of log-probabilities differ in length")
    count = len(values) - _generated(answer) if ids is None else len(ids)
    if ids is not None and len(values) not in (count, count + 1):
        raise ValueError(f"it gives log-probabilities of {len(values)} tokens, where the prompt has {count}")
    logprobs = tuple(_number(value) for value in values[:count])
    greedy = [_is_top(logprob, top) for logprob, top in zip(logprobs, tops, strict=False)]
    if isinstance(exact := choice.get("prompt_logprobs"), list) and len(exact) == count:
        # By id: several tokens may have one text, and then overwrite each other above.
        greedy = [_is_top(logprob, _by_id(entry)) for logprob, entry in zip(logprobs, exact, strict=True)]
    return Echoed(tuple(map(str, tokens[:count])), logprobs, tuple(greedy))


def continuation_start(tokens: Sequence[str], continuation: str) -> tuple[int, bool]:
    """Index of the token that the continuation begins in; true where that token begins before it.

    The text is compared from its end: what a server puts in front (BOS) and how it spells the context do not matter.
    Raises ValueError where the tokens do not spell the continuation.
    """
    index, spelled = len(tokens), ""
    while len(spelled) < len(continuation) and index > 0:
        index -= 1
        spelled = tokens[index] + spelled
    tail = spelled[-len(continuation) :]
    if len(tail) != len(continuation) or any(
        a not in (b, CUT_CHARACTER) for a, b in zip(tail, continuation, strict=True)
    ):
        raise ValueError("its tokens do not spell the continuation")
    # A character of several tokens: its first ones may show as nothing, and so may a special token of the context.
    if index > 1 and not tokens[index - 1] and not continuation[0].isascii():
        raise ValueError("its tokens do not tell where the continuation begins")
    return index, len(spelled) > len(continuation)


def _generated(answer: Mapping[str, Any]) -> int:
    usage = answer.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) else 1


def _number(value: Any) -> float | None:
    if value is None:
        return None
    # JSON has no minus infinity: some servers write a very low number, others a text.
    number = float(value)
    if math.isnan(number) or number > 1e-3:
        raise ValueError(f"it gives {number} for a log-probability")
    return min(number, 0.0)


def _is_top(logprob: float | None, top: Any) -> bool | None:
    if logprob is None or not isinstance(top, Mapping) or not top:
        return None
    return logprob >= max(float(value) for value in top.values())


def _by_id(entry: Any) -> Any:
    """vLLM's record of one place, as log-probabilities by token id."""
    return {token: found["logprob"] for token, found in entry.items()} if isinstance(entry, Mapping) else None
