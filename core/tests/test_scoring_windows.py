"""Windows score every token of a long text once, and never feed more than the context holds."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from evalkit.scoring import Span, rolling_spans, truncated_span

PREFIX = -1
TOKENS = st.lists(st.integers(0, 9), max_size=60).map(tuple)
LIMITS = st.integers(1, 20)


def _harness_windows(tokens: tuple[int, ...], limit: int) -> Iterator[tuple[list[int], list[int]]]:
    """`get_rolling_token_windows` with context_len 1, then `make_disjoint_window`, of lm-evaluation-harness."""
    listed = list(tokens)
    if not listed:
        return
    first = min(limit, len(listed))
    yield [PREFIX, *listed[: first - 1]][:1], listed[:first]
    predicted = first
    while predicted < len(listed):
        count = min(len(listed) - predicted, limit)
        end = predicted + count
        before, targets = listed[end - limit - 1 : end - 1], listed[end - count : end]
        yield before[: len(before) - (len(targets) - 1)], targets
        predicted += count


@given(TOKENS, LIMITS)
def test_every_token_is_scored_once_and_in_order(tokens: tuple[int, ...], limit: int) -> None:
    """The targets of all windows, one after the other, are the text."""
    spans = list(rolling_spans(tokens, PREFIX, limit))
    assert tuple(token for span in spans for token in span.targets) == tokens


@given(TOKENS, LIMITS)
def test_no_window_feeds_more_than_the_limit(tokens: tuple[int, ...], limit: int) -> None:
    """A window fits the context, and scores nothing that has no token before it."""
    for span in rolling_spans(tokens, PREFIX, limit):
        assert 1 <= len(span.fed) <= limit
        assert span.start >= 1
        assert span.targets


@given(TOKENS, LIMITS)
def test_windows_are_those_of_the_harness(tokens: tuple[int, ...], limit: int) -> None:
    """Contexts and targets are exactly those of get_rolling_token_windows, made disjoint."""
    found = [(list(span.ids[: span.start]), list(span.targets)) for span in rolling_spans(tokens, PREFIX, limit)]
    assert found == list(_harness_windows(tokens, limit))


@given(TOKENS.filter(bool), LIMITS)
def test_only_the_first_window_follows_the_prefix(tokens: tuple[int, ...], limit: int) -> None:
    """The first window begins with the prefix token; later ones continue the text itself."""
    first, *later = rolling_spans(tokens, PREFIX, limit)
    assert first.ids[: first.start] == (PREFIX,)
    assert all(PREFIX not in span.ids for span in later)


def test_the_last_window_is_filled_up_with_earlier_tokens() -> None:
    """The last tokens of a text see as much before them as fits."""
    spans = list(rolling_spans(tuple(range(10)), PREFIX, 4))
    assert spans[-1] == Span((5, 6, 7, 8, 9), 3)


@given(TOKENS.filter(bool), TOKENS.filter(bool), LIMITS)
def test_truncation_keeps_the_last_tokens(context: tuple[int, ...], continuation: tuple[int, ...], limit: int) -> None:
    """A pair feeds the slice that the harness feeds, and still scores its whole continuation."""
    continuation = continuation[:limit]
    span = truncated_span(context, continuation, limit)
    assert span.fed == (context + continuation)[-(limit + 1) :][:-1]
    assert span.targets == continuation
    assert span.start >= 1
