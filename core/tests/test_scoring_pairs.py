"""Pairs become the tokens that lm-evaluation-harness scores, whatever the tokenizer merges at the join."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from evalkit.requests import LoglikelihoodRequest
from evalkit.scoring.pairs import MERGED, EncodedPair, encode_pairs, encode_pairs_apart, move_whitespace

PREFIX = "<s>"
PIECES = [PREFIX, *"abc \n", "ab", "bc", "ca", " a", " b", "a b", "  ", "\n\n", "b\n", "abc", "cab", "c ab", "aaaa"]
TEXTS = st.lists(st.sampled_from([*PIECES, "a", " "]), max_size=8).map("".join)
SOLID = TEXTS.filter(lambda text: text.strip() != "")


class GreedyTokenizer:
    """Takes the longest piece that fits: pieces reach across the join of context and continuation."""

    prefix_token_id = 0
    eos_token_ids = frozenset({0})
    eos_text: str | None = PREFIX
    vocab_size = len(PIECES)

    def __init__(self, *, adds_prefix: bool = False) -> None:
        self.adds_prefix = adds_prefix
        self.seen: list[str] = []

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Ids of each text, behind the prefix where the tokenizer adds one and the text has none."""
        self.seen += texts
        return [self.encode(text, special=special) for text in texts]

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of one text."""
        ids = [0] if special and self.adds_prefix and not text.startswith(PREFIX) else []
        while text:
            piece = max((piece for piece in PIECES if text.startswith(piece)), key=len)
            ids.append(PIECES.index(piece))
            text = text[len(piece) :]
        return ids


def _pair(tokenizer: GreedyTokenizer, context: str, continuation: str) -> EncodedPair:
    return encode_pairs(tokenizer, [LoglikelihoodRequest(context, continuation)])[0]  # type: ignore[arg-type]


def _harness(tokenizer: GreedyTokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """What lm-evaluation-harness 0.4.13 makes of a pair, written down as it reads there."""
    if context == "":
        ids = tokenizer.encode(continuation, special=False)
        return ([0], ids) if ids[0] != 0 else (ids[:1], ids[1:])
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole, start = tokenizer.encode(context + continuation), tokenizer.encode(context)
    return start, whole[len(start) :]


@given(SOLID, TEXTS, st.booleans())
@example("a", "b", False)
@example("ab ", "a", False)
@example("<s>ab", "c", True)
def test_tokens_are_those_of_the_harness(context: str, continuation: str, adds_prefix: bool) -> None:
    """Where the harness finds something to score, context and continuation have exactly its tokens."""
    tokenizer = GreedyTokenizer(adds_prefix=adds_prefix)
    expected = _harness(tokenizer, context, continuation)
    assume(expected[0] and expected[1])
    assert _pair(tokenizer, context, continuation) == EncodedPair(tuple(expected[0]), tuple(expected[1]))


@given(TEXTS.filter(bool), st.booleans())
@example("<s>", False)
@example("<s>ab", True)
def test_an_empty_context_is_the_prefix_token(continuation: str, adds_prefix: bool) -> None:
    """The prefix stands before the text once: a text that begins with it gets no second one."""
    tokenizer = GreedyTokenizer(adds_prefix=adds_prefix)
    expected = _harness(tokenizer, "", continuation)
    if not expected[1]:
        # The text is the prefix alone: the harness has nothing to score, here it is the continuation.
        expected = ([0], [0])
    assert _pair(tokenizer, "", continuation) == EncodedPair(tuple(expected[0]), tuple(expected[1]))


@given(st.text(" \n", min_size=1, max_size=4), SOLID, st.booleans())
def test_a_context_of_white_space_only_moves_wholly(space: str, continuation: str, adds_prefix: bool) -> None:
    """White space before a continuation is scored with it, behind the prefix token."""
    tokenizer = GreedyTokenizer(adds_prefix=adds_prefix)
    expected = EncodedPair((0,), tuple(tokenizer.encode(space + continuation, special=False)))
    assert _pair(tokenizer, space, continuation) == expected


@given(TEXTS, TEXTS)
def test_moving_white_space_changes_no_text(context: str, continuation: str) -> None:
    """The text stays the same, and the context ends in no white space."""
    kept, moved = move_whitespace(context, continuation)
    assert kept + moved == context + continuation
    assert kept == kept.rstrip()
    assert moved.endswith(continuation)


def test_a_merged_join_is_scored_from_the_last_common_token() -> None:
    """ "ab" + "c" is one token "abc": it is scored whole behind what comes before it, and the output says so."""
    tokenizer = GreedyTokenizer()
    found = _pair(tokenizer, "\nab", "c")
    assert found == EncodedPair((PIECES.index("\n"),), (PIECES.index("abc"),), (MERGED,))


def test_a_join_merged_into_the_first_token_follows_the_prefix() -> None:
    """Where context and continuation are one token together, the prefix is the context."""
    assert _pair(GreedyTokenizer(), "a", "b") == EncodedPair((0,), (PIECES.index("ab"),), (MERGED,))


@given(SOLID, SOLID, st.booleans())
@example("c a", "bc", False)
def test_a_merged_join_loses_no_token(context: str, continuation: str, adds_prefix: bool) -> None:
    """Context and continuation together are always the whole text's tokens, with something left to score."""
    tokenizer = GreedyTokenizer(adds_prefix=adds_prefix)
    found = _pair(tokenizer, context, continuation)
    whole = tuple(tokenizer.encode(context + continuation))
    fell_back = len(whole) <= len(tokenizer.encode(context.rstrip()))
    assert found.notes == ((MERGED,) if fell_back else ())
    assert found.continuation
    if fell_back:
        assert found.context + found.continuation in (whole, (0, *whole))


@pytest.mark.parametrize("context", ["", "ab"])
def test_an_empty_continuation_has_no_tokens(context: str) -> None:
    """Nothing is scored for an empty continuation, least of all the end of its context."""
    found = _pair(GreedyTokenizer(), context, "")
    assert found.continuation == ()
    assert found.context


def test_equal_texts_are_encoded_once() -> None:
    """A context with four choices is encoded once, not four times."""
    tokenizer = GreedyTokenizer()
    requests = [LoglikelihoodRequest("ab", text) for text in (" a", " b", " a", "c")]
    encode_pairs(tokenizer, requests)  # type: ignore[arg-type]
    assert sorted(tokenizer.seen) == sorted({"ab", "ab a", "ab b", "abc"})


def test_given_token_ids_are_kept() -> None:
    """A caller who has encoded the pair is believed; an empty context is still the prefix."""
    requests = [
        LoglikelihoodRequest("ab", "c", context_ids=(7, 8), continuation_ids=(9,)),
        LoglikelihoodRequest("", "c", context_ids=(), continuation_ids=(9,)),
    ]
    found = encode_pairs(GreedyTokenizer(), requests)  # type: ignore[arg-type]
    assert found == [EncodedPair((7, 8), (9,)), EncodedPair((0,), (9,))]


@given(TEXTS, TEXTS)
def test_encoder_decoder_pairs_do_not_merge(context: str, continuation: str) -> None:
    """An encoder-decoder model reads context and continuation apart; white space still moves."""
    tokenizer = GreedyTokenizer()
    found = encode_pairs_apart(tokenizer, [LoglikelihoodRequest(context, continuation)])[0]  # type: ignore[arg-type]
    kept, moved = move_whitespace(context, continuation)
    assert found.context == (tuple(tokenizer.encode(kept)) or (0,))
    assert found.continuation == tuple(tokenizer.encode(moved, special=False))
