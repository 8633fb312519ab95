"""Log-probabilities as /v1/completions gives them, so that lm-evaluation-harness reads them right.

It sums `token_logprobs`, and takes a token for the greedy one where its value equals the largest of `top_logprobs`. So
the chosen token has one value in both, and where it is not the likeliest token another entry is above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.requests import GenerationOutput, LoglikelihoodOutput
from evalkit_http.openai.answers import finite
from evalkit_http.openai.texts import Texts, distinct_keys, offsets


@dataclass(frozen=True, slots=True)
class Scored:
    """A token with its log-probability, and the likeliest tokens at its place as (id, log-probability), best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def scored_prompt(ids: Sequence[int], output: LoglikelihoodOutput) -> list[Scored]:
    """The scores of a prompt's tokens behind its first one."""
    values, tops = output.token_logprobs or (), output.top_logprobs or ()
    # The output may hold one place more: a stand-in behind the prompt.
    return [Scored(*entry) for entry in zip(ids[1:], values, tops, strict=False)]


def scored_answer(sample: GenerationOutput) -> list[Scored]:
    """The scores of generated tokens."""
    return [
        Scored(entry.token_id, entry.logprob, tuple((token, value) for token, _, value in entry.top))
        for entry in sample.logprobs or ()
    ]


def completion_logprobs(
    texts: Texts, entries: Sequence[Scored | int], most: int, *, start: int = 0, before: Sequence[int] = ()
) -> dict[str, list[Any]]:
    """OpenAI's four lists. An entry that is a bare token id has no score: nothing stands before it.

    `start` is the offset of the first entry's text; characters may begin in `before`, the tokens in front of it.
    """
    ids = [entry if isinstance(entry, int) else entry.token for entry in entries]
    pieces = texts.pieces([*before, *ids])[len(before) :]
    return {
        "tokens": pieces,
        "token_logprobs": [None if isinstance(entry, int) else finite(entry.logprob) for entry in entries],
        "top_logprobs": [
            None if isinstance(entry, int) else top_logprobs(texts, piece, entry, most)
            for piece, entry in zip(pieces, entries, strict=True)
        ],
        "text_offset": offsets(pieces, start),
    }


def top_logprobs(texts: Texts, piece: str, entry: Scored, most: int) -> dict[str, float]:
    """The likeliest tokens by text, at most `most`, and the chosen one, whether it is among them or not."""
    top = entry.top[:most]
    own = finite(entry.logprob)
    others = [(token, value) for token, value in top if token != entry.token]
    keys = distinct_keys(piece, [(token, texts.spell(token)) for token, _ in others])
    found = dict(zip(keys, _apart(own, (finite(value) for _, value in others), top, entry.token), strict=True))
    return {piece: own, **found}


def _apart(own: float, others: Iterable[float], top: Sequence[tuple[int, float]], chosen: int) -> list[float]:
    """The others' values. Where two tokens tie for the first place, the one that greedy decoding takes is above."""
    values = list(others)
    if values and top[0][0] != chosen and values[0] <= own:
        values[0] = math.nextafter(own, math.inf)
    elif top and top[0][0] == chosen:
        values = [min(value, own) for value in values]
    return values
