"""Scores are those of one full float32 pass a request, however requests are batched, cut and selected."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sessions import float32_session

from evalkit.requests import (
    GenerationRequest,
    LoglikelihoodRequest,
    RollingLoglikelihoodRequest,
)
from evalkit.scoring import Span
from evalkit.testing.reference import (
    CLOSE,
    CONTEXTS,
    CONTINUATIONS,
    PAIRS,
    Score,
    check_score,
    encoded_pair,
    naive_score,
    reference_model,
)
from evalkit_transformers.session import TransformersSession

Write = Callable[[transformers.PreTrainedConfig], Path]
Watch = Callable[[TransformersSession], AbstractContextManager[list[int]]]


# ── exactness ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["llama", "llama_rows", "mistral", "t5"])
def test_scores_equal_a_naive_pass_a_request(name: str, request: pytest.FixtureRequest) -> None:
    """Each token's log-probability is that of a full pass over its request alone."""
    path = request.getfixturevalue(f"{name.removesuffix('_rows')}_path")
    session = request.getfixturevalue(name)
    model = reference_model(path)
    for pair, output in zip(PAIRS, session.loglikelihood(PAIRS), strict=True):
        check_score(output, naive_score(model, *encoded_pair(path, pair)))


def test_the_window_slides_within_long_contexts(mistral: TransformersSession, mistral_path: Path) -> None:
    """Contexts longer than the window are scored as the model sees them: each layer looks back one window."""
    model = reference_model(mistral_path)
    context = "The earth is a planet and the moon goes around it. " * 3
    pairs = [LoglikelihoodRequest(start + context, " So it is.") for start in ("", "Look! ", "A. B. C. D. ")]
    expected = [naive_score(model, *encoded_pair(mistral_path, pair)) for pair in pairs]
    assert len(encoded_pair(mistral_path, pairs[0])[0]) > 3 * model.config.sliding_window
    for output, score in zip(mistral.loglikelihood(pairs), expected, strict=True):
        check_score(output, score)
    # The reference does depend on the window: without it, the same weights give other scores.
    model.config.sliding_window = None
    wide = transformers.MistralForCausalLM(model.config).eval()
    wide.load_state_dict(model.state_dict())
    assert naive_score(wide, *encoded_pair(mistral_path, pairs[0]))[0] != pytest.approx(expected[0][0], abs=0.1)


def test_an_encoder_reads_the_specials_of_its_tokenizer(t5: TransformersSession) -> None:
    """T5's encoder input ends with `</s>`; the decoder's continuation has no specials and follows the start token."""
    pair = t5.encode([LoglikelihoodRequest("The sky is", " blue")])[0]
    eos = t5.hf_tokenizer.eos_token_id
    assert pair.context[-1] == eos
    assert eos not in pair.continuation
    assert t5.decoder_start == 0


def test_an_empty_context_is_the_prefix_token(tiny: TransformersSession) -> None:
    """After an empty context a text is scored as after the prefix token (BOS, else EOS)."""
    text = "The king of Spain"
    ids = tuple(tiny.tokenizer.encode_batch([text], special=False)[0])
    given_ids = LoglikelihoodRequest("", text, (tiny.tokenizer.prefix_token_id,), ids)
    empty, given_prefix = tiny.loglikelihood([LoglikelihoodRequest("", text), given_ids])
    assert empty.token_count == len(ids)
    assert empty.logprob == pytest.approx(given_prefix.logprob, abs=1e-5)


def test_greedy_continuations_are_found(tiny: TransformersSession) -> None:
    """The model's own greedy continuation is greedy, and stops being so with any other last token."""
    for context in ("The sky is", "A", "Two and two make"):
        ids = tuple(tiny.tokenizer.encode_batch([context])[0])
        model = tiny.model
        with torch.inference_mode():
            sequence = model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=5,
                do_sample=False,
            )[0].tolist()
        best = tuple(sequence[1:] if tiny.is_encoder_decoder else sequence[len(ids) :])
        other = (*best[:-1], (best[-1] + 1) % tiny.tokenizer.vocab_size)
        outputs = tiny.loglikelihood([LoglikelihoodRequest("", "", ids, end) for end in (best, other)])
        assert [output.is_greedy for output in outputs] == [True, False]


def test_long_requests_keep_their_last_tokens(llama_path: Path) -> None:
    """Of a pair longer than the context the last tokens are read, as lm-evaluation-harness does, and a note says so."""
    model, limit = reference_model(llama_path), 24
    pairs = [LoglikelihoodRequest("There were three apples on the table. " * n, " She ate one.") for n in (1, 2, 5)]
    with float32_session(llama_path, {"max_length": limit}) as session:
        outputs = session.loglikelihood(pairs)
    for pair, output in zip(pairs, outputs, strict=True):
        context, continuation = encoded_pair(llama_path, pair)
        fed = (context + continuation)[-(limit + 1) :]
        check_score(output, naive_score(model, fed[: -len(continuation)], continuation))
        too_long = len(context) + len(continuation) - 1 > limit
        assert any("truncated" in note for note in output.notes) == too_long
    assert outputs[-1].notes


def test_a_continuation_may_fill_the_whole_context(llama_path: Path) -> None:
    """As many scored tokens as the context holds are scored after the one before them; one more is an error."""
    limit, ids = 16, tuple(range(40, 60))
    with float32_session(llama_path, {"max_length": limit}) as session:
        fits, does_not, after = session.loglikelihood(
            [
                LoglikelihoodRequest("", "", (7, 8, 9), ids[:limit]),
                LoglikelihoodRequest("", "", (7, 8, 9), ids[: limit + 1]),
                LoglikelihoodRequest("", "", (7, 8, 9), ids[:2]),
            ]
        )
    check_score(fits, naive_score(reference_model(llama_path), (9,), ids[:limit]))
    assert does_not.error is not None
    assert after.error is None


def test_an_encoder_keeps_the_end_of_a_long_context(t5_path: Path) -> None:
    """An encoder reads the last tokens of a context that it cannot hold."""
    model, limit = reference_model(t5_path), 16
    pair = LoglikelihoodRequest("There were three apples on the table. " * 3, " She ate one.")
    with float32_session(t5_path, {"max_length": limit}) as session:
        output = session.loglikelihood([pair])[0]
    context, continuation = encoded_pair(t5_path, pair)
    check_score(output, naive_score(model, context[-limit:], continuation))
    assert any("truncated" in note for note in output.notes)


@pytest.mark.parametrize("words", [0, 1, 3, 40])
def test_rolling_windows_score_every_token_once(llama_path: Path, words: int) -> None:
    """A text longer than the context is scored in windows that each see as much before them as fits."""
    limit, text = 20, " apple" * words + "." * bool(words)
    model, prefix = reference_model(llama_path), 1
    with float32_session(llama_path, {"max_length": limit}) as session:
        tokens = session.tokenizer.encode_batch([text])[0]
        output = session.loglikelihood_rolling([RollingLoglikelihoodRequest(text)])[0]
    expected, done = [], min(limit, len(tokens))
    if tokens:
        expected += naive_score(model, [prefix], tokens[:done])[0]
    while done < len(tokens):
        end = min(done + limit, len(tokens))
        window = tokens[max(0, end - limit - 1) : end]
        expected += naive_score(model, window[: -(end - done)], window[-(end - done) :])[0]
        done = end
    assert output.token_count == len(tokens)
    assert output.logprob == pytest.approx(sum(expected), **CLOSE)


def test_no_score_is_infinite_or_undefined(tiny: TransformersSession) -> None:
    """Every score is a finite number, also of text that the vocabulary spells byte by byte."""
    odd = [
        LoglikelihoodRequest(c, t) for c in ("", "\n", "北京 😀", "a\u0000b") for t in ("\u200b", " 😀", "\n\n\n", "é")
    ]
    assert all(math.isfinite(output.logprob) for output in tiny.loglikelihood(odd))


# ── independence of batches ─────────────────────────────────────────────────────────────────────────────
@settings(max_examples=25, deadline=None, database=None)
@given(
    order=st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=12),
    batch_size=st.none() | st.integers(1, 9),
    batch_tokens=st.integers(1, 400),
)
def test_scores_do_not_depend_on_batches(
    tiny: TransformersSession, order: list[int], batch_size: int | None, batch_tokens: int
) -> None:
    """Any choice of requests in any order, with repeats, in batches of any size, has the scores of each alone."""
    known = alone(tiny)
    before, tiny.batch_tokens = tiny.batch_tokens, batch_tokens
    try:
        outputs = tiny.loglikelihood([PAIRS[index] for index in order], batch_size=batch_size)
    finally:
        tiny.batch_tokens = before
    for index, output in zip(order, outputs, strict=True):
        check_score(output, known[index])


@functools.cache
def alone(session: TransformersSession) -> list[Score]:
    """The scores of all pairs, each asked on its own."""
    outputs = [session.loglikelihood([pair])[0] for pair in PAIRS]
    return [(list(output.token_logprobs or ()), output.is_greedy) for output in outputs]


def test_computed_tokens_are_those_that_went_through_the_model(tiny: TransformersSession, watch_tokens: Watch) -> None:
    """The count of computed tokens is that of all input positions, padding included."""
    before = tiny.token_counts()
    with watch_tokens(tiny) as seen:
        tiny.loglikelihood(PAIRS, batch_size=4)
    after = tiny.token_counts()
    assert after.computed - before.computed == sum(seen)
    assert sum(seen) >= after.unique - before.unique > 0
    assert after.requested - before.requested >= after.unique - before.unique


# ── shared prefixes ─────────────────────────────────────────────────────────────────────────────────────
def test_shared_prefixes_are_computed_once(llama: TransformersSession, llama_rows: TransformersSession) -> None:
    """Questions behind one few-shot prefix cost what is distinct in them, without padding."""
    shots = "Question: how many?\nAnswer: seven.\n\n" * 3
    questions = [f"{shots}Question: {word}?\nAnswer:" for word in ("what", "where", "who", "when and why")]
    pairs = [LoglikelihoodRequest(text, f" {answer}") for text in questions for answer in ("the king", "the", "sea")]
    costs = []
    for session in (llama, llama_rows):
        before = session.token_counts()
        outputs = session.loglikelihood(pairs)
        after = session.token_counts()
        costs.append((after.computed - before.computed, after.unique - before.unique, outputs))
    (shared, unique, found), (padded, _, expected) = costs
    assert shared == unique
    assert padded > 5 * shared
    assert [output.logprob for output in found] == pytest.approx([output.logprob for output in expected], **CLOSE)


def test_large_batches_come_in_few_sizes_and_score_the_same(
    llama: TransformersSession, llama_rows: TransformersSession, watch_tokens: Watch
) -> None:
    """A batch of many tokens is padded to a round number, which is counted, and no score changes."""
    texts = [LoglikelihoodRequest(f"{number} stands before", f" the {number * 7} others") for number in range(70)]
    before = llama.token_counts().computed
    with watch_tokens(llama) as seen:
        found = llama.loglikelihood(texts)
    assert any(size >= 512 for size in seen)
    assert all(size % 64 == 0 for size in seen if size >= 512)
    assert sum(seen) == llama.token_counts().computed - before
    for output, other in zip(found, llama_rows.loglikelihood(texts), strict=True):
        assert output.token_logprobs == pytest.approx(other.token_logprobs, **CLOSE)


def test_nothing_of_a_prompt_stays_in_memory(llama: TransformersSession) -> None:
    """Keys and values of shared prefixes are given up once their requests are answered."""
    llama.loglikelihood(PAIRS)
    llama.generate([GenerationRequest(prompt=CONTEXTS[-1] * 2 + text, max_new_tokens=2) for text in CONTINUATIONS])
    assert not llama.tree.cache


@pytest.mark.parametrize("name", ["llama", "mistral"])
@settings(max_examples=40, deadline=None, database=None)
@given(
    texts=st.lists(st.lists(st.integers(3, 5), min_size=2, max_size=40), min_size=1, max_size=12),
    starts=st.lists(st.integers(1, 39), min_size=12, max_size=12),
    batch_tokens=st.integers(1, 120),
)
def test_any_forest_scores_as_its_rows(
    name: str, request: pytest.FixtureRequest, texts: list[list[int]], starts: list[int], batch_tokens: int
) -> None:
    """However requests share prefixes, and however small the batches, each scores as in a row of its own."""
    session: TransformersSession = request.getfixturevalue(name)
    assert session.shares_prefixes
    spans = [Span(tuple(ids), min(start, len(ids) - 1)) for ids, start in zip(texts, starts, strict=False)]
    asked = [LoglikelihoodRequest("", "", span.ids[: span.start], span.targets) for span in spans]
    before, session.batch_tokens = session.batch_tokens, batch_tokens
    try:
        outputs = session.loglikelihood(asked)
    finally:
        session.batch_tokens = before
    for output, expected in zip(outputs, session.score_batch(spans), strict=True):
        check_score(output, (list(expected.logprobs), expected.is_greedy))


@pytest.mark.parametrize(("name", "shares"), [("llama", True), ("mistral", True), ("llama_rows", False), ("t5", False)])
def test_the_description_says_how_requests_are_scored(name: str, shares: bool, request: pytest.FixtureRequest) -> None:
    """Sharing is used where the model allows it and was not switched off, and the description says which it is."""
    session: TransformersSession = request.getfixturevalue(name)
    assert session.shares_prefixes is shares
    assert session.describe_execution()["scoring"] == ("prefix forest" if shares else "padded rows")
