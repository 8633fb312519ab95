"""Cut a long text into windows. Windows are disjoint: every token is scored exactly once."""

from __future__ import annotations

from collections.abc import Iterator

from evalkit.scoring.spans import Span


def rolling_spans(tokens: tuple[int, ...], prefix: int, limit: int) -> Iterator[Span]:
    """Spans that score `tokens` with at most `limit` tokens fed to the model at once.

    The first window follows the `prefix` token. A later one is filled up with as many earlier tokens as fit
    (context_len = 1 of lm-evaluation-harness): its first scored token has at least one token before it.
    """
    done = min(limit, len(tokens))
    if done:
        yield Span((prefix, *tokens[:done]), 1)
    while done < len(tokens):
        count = min(limit, len(tokens) - done)
        end = done + count
        window = tokens[max(0, end - limit - 1) : end]
        yield Span(window, len(window) - count)
        done = end
