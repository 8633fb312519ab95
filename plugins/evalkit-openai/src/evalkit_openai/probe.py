"""Whether a server really honours `echo`: a text that it wrote itself must get the scores it gave while writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evalkit_openai.echo import Echoed, echo_body, read_echo

PROMPTS = ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,", "The days of the week are Monday, Tuesday,", "Once upon a time")
WRITTEN = 12
TOLERANCE = 0.1
"""Mean difference between two passes over the same tokens: rounding is far below it, other tokens' scores far above."""

Post = Callable[[dict[str, Any]], Any]
Encode = Callable[[str], Sequence[int]]


def check_echo(post: Post, encode: Encode | None) -> bool:
    """Whether the server tells which tokens are the likeliest. Raises ValueError with what is wrong with its echo.

    With `encode` prompts are sent as token ids.
    """
    for prompt in PROMPTS:
        if written := _write(post, prompt, encode):
            return _compare(post, prompt, written, encode)
    raise ValueError("it writes nothing behind the probe's prompts, so that its scores cannot be checked")


def _write(post: Post, prompt: str, encode: Encode | None) -> list[tuple[str, float]]:
    """Tokens and log-probabilities of a greedy continuation; an end of text at its end is left out."""
    asked = prompt if encode is None else list(encode(prompt))
    answer = post({"prompt": asked, "max_tokens": WRITTEN, "temperature": 0, "logprobs": 1})
    choice = answer["choices"][0]
    found = choice.get("logprobs") or {}
    tokens, values = found.get("tokens"), found.get("token_logprobs")
    if not tokens or not values:
        if choice.get("text"):
            raise ValueError("it gives no log-probabilities of what it writes")
        return []
    length, written = len(choice["text"]), []
    for token, value in zip(tokens, values, strict=True):
        if length <= 0 or value is None:
            break
        written.append((str(token), float(value)))
        length -= len(token)
    return written


def _compare(post: Post, prompt: str, written: list[tuple[str, float]], encode: Encode | None) -> bool:
    text = prompt + "".join(token for token, _ in written)
    ids = None if encode is None else list(encode(text))
    first, second = [read_echo(post(echo_body(text if ids is None else ids)), ids) for _ in range(2)]
    _check_values(first)
    if _distance(_known(first), _known(second)) > TOLERANCE:
        raise ValueError("it gives other log-probabilities when it is asked again")
    same = _common(first, written)
    if not same:
        raise ValueError("its tokens do not spell the prompt")
    if _distance([ours for ours, _ in same], [theirs for _, theirs in same]) > TOLERANCE:
        raise ValueError("the log-probabilities that it gives belong to other tokens")
    # Where no token of a whole text is unlikely, "greedy" means nothing.
    return {True, False} <= set(first.greedy)


def _check_values(echoed: Echoed) -> None:
    known = _known(echoed)
    if len(known) < len(echoed.logprobs) - 1 or len(known) < WRITTEN:
        raise ValueError("it gives log-probabilities of a part of the prompt only")
    if len(set(known)) == 1:
        raise ValueError("it gives the same log-probability for every token")


def _known(echoed: Echoed) -> list[float]:
    return [value for value in echoed.logprobs if value is not None]


def _common(echoed: Echoed, written: list[tuple[str, float]]) -> list[tuple[float, float]]:
    """Both scores of each written token, up to where the text is cut into other tokens."""
    start = len(echoed.tokens) - len(written)
    # The end of a text may be cut otherwise, which moves where the written part begins.
    for shift in (0, *range(1, start), *(-step for step in range(1, len(written)))):
        pairs = []
        behind = zip(echoed.tokens[start - shift :], echoed.logprobs[start - shift :], strict=True)
        for (token, value), (own, theirs) in zip(behind, written, strict=False):
            if token != own or value is None:
                break
            pairs.append((value, theirs))
        if len(pairs) >= min(3, len(written)):
            return pairs
    return []


def _distance(values: Sequence[float], others: Sequence[float]) -> float:
    if len(values) != len(others):
        return float("inf")
    return sum(abs(a - b) for a, b in zip(values, others, strict=True)) / max(1, len(values))
