"""What TensorRT LLM is asked, what its answers become, and what is refused because it cannot be done exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import ConfigError
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.scoring.logits import log_softmax
from evalkit_tensorrt_llm.session import TensorRTLLMSession

CONTEXT = "What is the capital of France? The capital of France is"
Open = Callable[..., TensorRTLLMSession]


def asked(session: TensorRTLLMSession) -> list[dict[str, Any]]:
    """What the stand-in was asked since the last call."""
    found, session.library.asked = session.library.asked, []
    assert isinstance(found, list)
    return found


def ids(session: TensorRTLLMSession, text: str) -> list[int]:
    return session.tokenizer.encode_batch([text])[0]


def logprobs(tokens: list[int]) -> np.ndarray:
    """The stand-in's model, computed here."""
    from tensorrt_llm.llm import VOCABULARY

    from evalkit.testing.fake import next_scores

    return log_softmax(np.array([next_scores(tokens, VOCABULARY)], np.float16).astype(np.float32))[0]


def test_scores_are_those_of_the_model(session: TensorRTLLMSession) -> None:
    """Each token's log-probability is the model's own behind all tokens before it, over the whole vocabulary."""
    output = session.loglikelihood([LoglikelihoodRequest(CONTEXT, " Paris, which is a city")])[0]
    whole, start = ids(session, CONTEXT + " Paris, which is a city"), len(ids(session, CONTEXT))
    rows = [logprobs(whole[:end]) for end in range(start, len(whole))]
    expected = [float(row[token]) for row, token in zip(rows, whole[start:], strict=True)]
    assert output.token_logprobs == pytest.approx(expected, abs=1e-5)


def test_choices_of_one_token_are_one_request(session: TensorRTLLMSession) -> None:
    """They are read from the logits behind their context, whose beginning may come from the cache."""
    session.loglikelihood([LoglikelihoodRequest(CONTEXT, choice) for choice in "ABCD"])
    (request,) = asked(session)
    assert request["inputs"] == ids(session, CONTEXT)
    assert request["sampling_params"].return_generation_logits
    assert not request["sampling_params"].return_context_logits
    assert request["cache_salt"] is None


def test_prompts_that_are_scored_find_nothing_in_the_cache(session: TensorRTLLMSession) -> None:
    """Reused blocks have no logits: each such prompt has a salt of its own, so repeated prompts score alike."""
    pairs = [LoglikelihoodRequest(CONTEXT, f" {city} is a city") for city in ("Paris", "Madrid", "Paris")]
    outputs = session.loglikelihood(pairs)
    salts = [request["cache_salt"] for request in asked(session)]
    assert None not in salts
    assert len(set(salts)) == len(salts)
    assert outputs[0].logprob == outputs[2].logprob == session.loglikelihood(pairs[:1])[0].logprob


def test_missing_logits_are_an_error_and_no_score(session: TensorRTLLMSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library reuses a prompt's blocks all the same, the request fails and says what helps."""
    monkeypatch.setattr(session.library, "_read", lambda salted: 4)
    output = session.loglikelihood([LoglikelihoodRequest(CONTEXT, " Paris is a city")])[0]
    assert output.error is not None
    assert "enable_block_reuse=false" in output.error


def test_logits_in_flight_are_bounded(open_session: Open) -> None:
    """Prompts whose tokens are scored hold no more rows together than `logit_rows`."""
    with open_session(logit_rows=60) as session:
        size = len(ids(session, CONTEXT))
        running: list[int] = []
        start = session.pump.start

        def watched(key: Any, stream: Any) -> None:
            start(key, stream)
            running.append(len(session.pump))

        session.pump.start = watched  # type: ignore[method-assign]
        session.loglikelihood([LoglikelihoodRequest(CONTEXT, f" {n} of them are") for n in range(12)])
    assert 1 <= max(running) <= max(1, 60 // size)


def test_a_stop_string_ends_the_text_at_once(session: TensorRTLLMSession) -> None:
    """It is looked for in the text, and the rest is not written; before the least length it ends nothing."""
    free = session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=16)])[0]
    stop = next(text for token in free.token_ids[7:] if (text := session.spell([token])).strip().isalpha())
    request = GenerationRequest(prompt=CONTEXT, max_new_tokens=16, min_new_tokens=6, stop=(stop,))
    output = session.generate([request])[0]
    assert output.finish_reason == "stop"
    assert 6 <= len(output.token_ids) < 16
    assert not session.library.running


def test_a_seed_that_may_not_count_is_noted(session: TensorRTLLMSession, open_session: Open) -> None:
    """TorchSampler passes over seeds: the output says so; with TRTLLMSampler they count."""
    request = GenerationRequest(prompt=CONTEXT, max_new_tokens=6, temperature=1.0, seed=1, n=2)
    output = session.generate([request])[0]
    assert "TRTLLMSampler" in output.notes[0]
    with open_session(sampler_type="TRTLLMSampler") as other:
        first, again = other.generate([request, request])
    assert not first.notes
    assert (first.token_ids, first.alternatives[0].token_ids) == (again.token_ids, again.alternatives[0].token_ids)
    assert first.token_ids != first.alternatives[0].token_ids


def test_what_cannot_be_done_is_refused_by_name(session: TensorRTLLMSession) -> None:
    """Beams, and min_p with a sampler that passes over it, fail alone; weights cannot be replaced."""
    values: list[dict[str, Any]] = [{"num_beams": 2}, {"temperature": 1.0, "min_p": 0.1}, {"min_p": 0.1}]
    beams, min_p, greedy = session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=2, **v) for v in values])
    assert "beam" in str(beams.error)
    assert "TRTLLMSampler" in str(min_p.error)
    assert greedy.error is None
    with pytest.raises(ConfigError, match="new one"):
        session.reload("elsewhere")


def test_written_tokens_have_their_log_probabilities(session: TensorRTLLMSession) -> None:
    """As many as are asked for stand beside each token, best first; the token itself is always told."""
    for tops in (0, 1, 3):
        output = session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=4, logprobs=tops)])[0]
        assert output.logprobs is not None
        assert [item.token_id for item in output.logprobs] == list(output.token_ids)
        assert all(len(item.top) == tops for item in output.logprobs)
        assert all(item.top[0][2] == item.logprob for item in output.logprobs if tops)


def test_an_adapter_is_used_for_each_request(open_session: Open, tmp_path: Path) -> None:
    """It is configured at the start, and named with each request."""
    with open_session({"adapter": str(tmp_path)}) as session:
        session.loglikelihood([LoglikelihoodRequest(CONTEXT, " Paris")])
        session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=2)])
        assert session.library.given["lora_config"].lora_dir == [str(tmp_path)]
        assert {request["lora_request"].lora_path for request in asked(session)} == {str(tmp_path)}
