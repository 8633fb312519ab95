"""Scores and texts of vLLM sessions: beside Transformers, with the cache and without; beams, limits, reloading."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.scoring import Span
from evalkit.testing.decoders import check_greedy, check_spans, token_logprobs
from evalkit.testing.reference import reference_model
from evalkit_vllm.session import VLLMSession

QUESTION = "What is the capital of France? The capital of France is Paris, and the capital of Spain is "
TEXT = "The sun is a star, the earth is a planet, and the moon goes around the earth in about one month. " * 5


@pytest.fixture(scope="session")
def reference(llama_path: Path) -> Any:
    """The same weights in Transformers."""
    return reference_model(llama_path)


def expected(reference: Any, ids: Sequence[int], start: int) -> list[float]:
    """Log-probabilities of `ids[start:]`."""
    return token_logprobs(reference, ids)[start - 1 :]


def spans_of(session: VLLMSession) -> list[Span]:
    """Texts that share beginnings of all lengths, scored from everywhere: on and beside the bounds of cache blocks."""
    ids = tuple(session.tokenizer.encode_batch([TEXT])[0])[:120]
    return [
        Span((*ids[:cut], *tail), start)
        for cut in (1, 31, 32, 33, 64, 97)
        for tail in ((40,), (40, 41, 42), ids[cut : cut + 20])
        for start in {1, cut}
    ]


def test_scores_are_those_of_transformers(llama: VLLMSession, reference: Any) -> None:
    """Wherever a text begins to be scored, and whatever the cache holds of it."""
    spans = spans_of(llama)
    for order in (spans, spans[::-1]):
        check_spans(llama, reference, order)


def test_greedy_texts_are_those_of_transformers(llama: VLLMSession, reference: Any) -> None:
    """Token by token."""
    check_greedy(llama, reference)


def test_choices_of_one_token_cost_one_prompt(llama: VLLMSession) -> None:
    """Four letters behind a question: its tokens go through the model once."""
    llama.gc()
    before = llama.token_counts().computed
    requests = [LoglikelihoodRequest(QUESTION, letter) for letter in (" A", " B", " C", " D")]
    pairs = llama.encode(requests)
    outputs = llama.loglikelihood(requests)
    assert len({pair.context for pair in pairs}) == 1
    longest = max(len(pair.continuation) for pair in pairs)
    if longest == 1:
        assert llama.token_counts().computed - before == len(pairs[0].context)
    assert all(output.error is None for output in outputs)


def test_the_longest_text_fits(llama: VLLMSession, reference: Any) -> None:
    """As many tokens as the model's context are read, and the one behind them is scored."""
    ids = tuple(llama.tokenizer.encode_batch([TEXT * 4])[0])[:257]
    (scored,) = llama.score_batch([Span(ids, 255)])
    assert scored.logprobs == pytest.approx([*expected(reference, ids[:256], 255), scored.logprobs[-1]], abs=1e-3)
    assert len(scored.logprobs) == 2
    (likely,) = llama.score_batch([Span(ids, 255, tops=3)])
    assert likely.top is not None
    assert [len(top) for top in likely.top] == [3, 3]


def test_windows_score_every_token(llama: VLLMSession) -> None:
    """A text longer than the context."""
    (output,) = llama.loglikelihood_rolling([RollingLoglikelihoodRequest(TEXT * 3)])
    assert output.token_count == len(llama.tokenizer.encode_batch([TEXT * 3])[0])
    assert math.isfinite(output.logprob)


def test_logprobs_of_written_tokens(llama: VLLMSession, reference: Any) -> None:
    """Each is the model's own, before temperature; the likeliest tokens stand beside it."""
    request = GenerationRequest(prompt=QUESTION, max_new_tokens=5, temperature=0.5, seed=3, logprobs=2)
    output = llama.generate([request])[0]
    prompt = llama.prompt_ids(request)
    assert output.logprobs is not None
    found = [token.logprob for token in output.logprobs]
    assert found == pytest.approx(expected(reference, (*prompt, *output.token_ids), len(prompt)), abs=1e-3)
    assert all(len(token.top) == 2 for token in output.logprobs)


def test_seeds_make_samples_repeatable(llama: VLLMSession) -> None:
    """The same seed draws the same texts, another one others; samples of one request differ."""
    request = GenerationRequest(prompt="Once", max_new_tokens=12, temperature=1.0, seed=5, n=3)
    one, other = llama.generate([request])[0], llama.generate([request])[0]
    texts = [output.token_ids for output in (one, *one.alternatives)]
    assert texts == [output.token_ids for output in (other, *other.alternatives)]
    assert len(set(texts)) == 3


def test_beams_find_likelier_texts(llama: VLLMSession, reference: Any) -> None:
    """Four beams are at least as likely as the greedy text, and what they cannot do is refused by name."""
    request = GenerationRequest(prompt=QUESTION, max_new_tokens=6, num_beams=4, n=2)
    refused = GenerationRequest(prompt=QUESTION, max_new_tokens=6, num_beams=4, temperature=1.0)
    plain = GenerationRequest(prompt=QUESTION, max_new_tokens=6)
    beams, error, greedy = llama.generate([request, refused, plain])
    prompt = llama.prompt_ids(request)
    likely = [
        sum(expected(reference, (*prompt, *o.token_ids), len(prompt))) for o in (beams, *beams.alternatives, greedy)
    ]
    assert likely[0] >= likely[1]
    assert likely[0] >= likely[2] - 1e-3
    assert error.error is not None
    assert "temperature" in error.error


def test_values_that_vllm_refuses_fail_alone(llama: VLLMSession) -> None:
    """A temperature beyond what vLLM takes is that request's error."""
    fine = GenerationRequest(prompt="So", max_new_tokens=2)
    bad = GenerationRequest(prompt="So", max_new_tokens=2, temperature=5.0)
    outputs = llama.generate([fine, bad, fine])
    assert outputs[1].error is not None
    assert "temperature" in outputs[1].error
    assert outputs[0].error is outputs[2].error is None
