"""Whether a server really honours `echo`: a text that it wrote itself must get the scores it gave while writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evalkit_openai.echo import CUT_CHARACTER, Echoed, continuation_start, echo_body, read_echo

PROMPTS = ("1, 2, 3, 4, 5,", "The days of the week are Monday, Tuesday,", "Once upon a time", "A, B, C,", "To be or")
WRITTEN = 8
TOLERANCE = 0.1
"""Mean difference between two passes over the same tokens: rounding is far below it, other tokens' scores far above."""
OTHERS = "the log-probabilities that it gives belong to other tokens"

Post = Callable[[dict[str, Any]], Any]
Encode = Callable[[str], Sequence[int]]


def check_echo(post: Post, encode: Encode | None) -> bool:
    """Whether the server tells which tokens are the likeliest. Raises ValueError with what is wrong with its echo.

    With `encode` prompts are sent as token ids.
    """
    for prompt in PROMPTS:
        asked = prompt if encode is None else list(encode(prompt))
        answer = post({"prompt": asked, "max_tokens": WRITTEN, "temperature": 0, "logprobs": 1})
        choice = answer["choices"][0]
        # Half a character cannot be sent back.
        if text := str(choice.get("text") or "").split(CUT_CHARACTER)[0]:
            return _compare(post, prompt, text, _scores(choice, len(text)), encode)
    raise ValueError("it writes nothing behind the probe's prompts, so that its scores cannot be checked")


def _compare(post: Post, prompt: str, text: str, scores: list[tuple[str, float]], encode: Encode | None) -> bool:
    whole = prompt + text
    ids = None if encode is None else list(encode(whole))
    first, second = [read_echo(post(echo_body(whole if ids is None else ids)), ids) for _ in range(2)]
    _check_values(first)
    if _distance(_known(first), _known(second)) > TOLERANCE:
        raise ValueError("it gives other log-probabilities when it is asked again")
    if scores:
        _check_scores(first, scores)
    else:
        _check_greedy(first, text)
    # Where no token of a whole text is unlikely, "greedy" means nothing.
    return {True, False} <= set(first.greedy)


def _scores(choice: dict[str, Any], length: int) -> list[tuple[str, float]]:
    """Tokens and log-probabilities of the first `length` characters that were written, as far as they are told."""
    found = choice.get("logprobs") or {}
    written = []
    for token, value in zip(found.get("tokens") or (), found.get("token_logprobs") or (), strict=False):
        if length <= 0 or value is None:
            break
        written.append((str(token), float(value)))
        length -= len(token)
    return written


def _check_scores(echoed: Echoed, written: list[tuple[str, float]]) -> None:
    """Each written token has the score that it had while it was written."""
    same = _common(echoed, written)
    if not same:
        raise ValueError("its tokens do not spell the prompt")
    if _distance([ours for ours, _ in same], [theirs for _, theirs in same]) > TOLERANCE:
        raise ValueError(OTHERS)


def _check_greedy(echoed: Echoed, text: str) -> None:
    """Each written token is the likeliest at its place: for servers that give no scores of what they write."""
    flags = echoed.greedy[continuation_start(echoed.tokens, text)[0] :]
    if sum(map(bool, flags)) < len(flags) * 0.8:
        raise ValueError(OTHERS)


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
