"""What SGLang is asked, what its answers become, and what its session can do beyond the contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import ConfigError, ModelError
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit_sglang.session import SGLangSession

CONTEXT = "What is the capital of France? The capital of France is"


def asked(session: SGLangSession) -> list[dict[str, Any]]:
    """What the stand-in was asked since the last call."""
    found, session.library.asked = session.library.asked, []
    assert isinstance(found, list)
    return found


def ids(session: SGLangSession, text: str) -> list[int]:
    return session.tokenizer.encode_batch([text])[0]


def test_scores_are_those_of_the_model(session: SGLangSession) -> None:
    """Each token's log-probability is the model's own behind all tokens before it."""
    output = session.loglikelihood([LoglikelihoodRequest(CONTEXT, " Paris, which is a city")])[0]
    whole = ids(session, CONTEXT + " Paris, which is a city")
    start = len(ids(session, CONTEXT))
    rows = [session.library.logprobs(whole[:end]) for end in range(start, len(whole))]
    expected = [float(row[token]) for row, token in zip(rows, whole[start:], strict=True)]
    assert output.token_logprobs == pytest.approx(expected, abs=1e-6)
    assert output.is_greedy == all(int(np.argmax(row)) == t for row, t in zip(rows, whole[start:], strict=True))


def test_choices_of_one_token_are_one_request(session: SGLangSession) -> None:
    """Their ids are asked for behind the context, which is read once."""
    session.loglikelihood([LoglikelihoodRequest(CONTEXT, choice) for choice in "ABCD"])
    requests = [request for request in asked(session) if request["token_ids_logprob"]]
    assert len(requests) == 1
    assert requests[0]["input_ids"] == ids(session, CONTEXT)
    assert requests[0]["logprob_start_len"] == len(requests[0]["input_ids"])
    assert sorted(requests[0]["token_ids_logprob"]) == sorted(ids(session, choice)[0] for choice in "ABCD")


def test_contexts_are_read_once(session: SGLangSession) -> None:
    """What prompts share comes from the cache, though all are asked at once: they wait for what is being read."""
    questions = [f"{CONTEXT} {number}. And then" for number in range(4)]
    session.loglikelihood(
        [LoglikelihoodRequest(q, f" {c} of them") for q in questions for c in ("one", "two", "three")]
    )
    counts = session.token_counts()
    assert counts.unique <= counts.computed < 1.5 * counts.unique < 0.5 * counts.requested


def test_a_stop_string_before_the_least_length_does_not_end_the_text(session: SGLangSession) -> None:
    """SGLang is not told of it then; it is found here, and the rest of the text is not written."""
    free = session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=16)])[0]
    stop = next(text for token in free.token_ids[7:] if (text := session.spell([token])).strip().isalpha())
    asked(session)
    output = session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=16, min_new_tokens=6, stop=(stop,))])[0]
    assert "stop" not in asked(session)[0]["sampling_params"]
    assert output.finish_reason == "stop"
    assert 6 <= len(output.token_ids) < 16
    assert not session.library.tokenizer_manager.running


def test_a_seed_that_does_not_count_is_noted(session: SGLangSession) -> None:
    """Without deterministic inference SGLang passes over seeds: the output says so, and how to change it."""
    requests = [GenerationRequest(prompt=CONTEXT, max_new_tokens=4, temperature=t, seed=1) for t in (0.0, 1.0)]
    greedy, sampled = session.generate(requests)
    assert greedy.notes == ()
    assert "enable_deterministic_inference" in sampled.notes[0]
    (_, served), *_ = session.generate_live(iter([("a", requests[1])]), wants_parts=lambda key: False)
    assert served.notes == sampled.notes


def test_samples_have_seeds_of_their_own(open_session: Callable[..., SGLangSession]) -> None:
    """Several samples of one request differ, and are drawn again by the same seed."""
    request = GenerationRequest(prompt=CONTEXT, max_new_tokens=8, temperature=1.0, seed=5, n=3)
    with open_session(enable_deterministic_inference=True) as session:
        first, again = session.generate([request, request])
    texts = [first.token_ids, *(other.token_ids for other in first.alternatives)]
    assert len(set(texts)) == 3
    assert texts == [again.token_ids, *(other.token_ids for other in again.alternatives)]
    assert not first.notes


def test_written_tokens_have_their_log_probabilities(session: SGLangSession) -> None:
    """Those that are asked for stand beside each token, best first, in parts as in whole answers."""
    output = session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=5, logprobs=3, stop=("\x00",))])[0]
    assert output.logprobs is not None
    assert [item.token_id for item in output.logprobs] == list(output.token_ids)
    for item in output.logprobs:
        assert len(item.top) == 3
        assert item.top[0][2] == item.logprob <= 0
    plain = session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=5, logprobs=0)])[0]
    assert plain.logprobs is not None
    assert [item.top for item in plain.logprobs] == [()] * 5


def test_beams_are_refused_by_name(session: SGLangSession) -> None:
    """A request with beams fails alone."""
    output, other = session.generate(
        [
            GenerationRequest(prompt=CONTEXT, num_beams=4, max_new_tokens=2),
            GenerationRequest(prompt=CONTEXT, max_new_tokens=2),
        ]
    )
    assert output.error is not None
    assert "beam" in output.error
    assert other.error is None


def test_weights_are_replaced(session: SGLangSession, tmp_path: Path) -> None:
    """After `reload` scores are those of the new checkpoint, which the description names."""
    pair = [LoglikelihoodRequest(CONTEXT, " Paris")]
    before = session.loglikelihood(pair)[0].logprob
    session.reload(str(tmp_path))
    assert not math.isclose(session.loglikelihood(pair)[0].logprob, before)
    assert session.describe_execution()["checkpoint"] == str(tmp_path)
    with pytest.raises(ModelError, match="cannot load the weights"):
        session.reload(str(tmp_path / "nowhere"))
    assert session.describe_execution()["checkpoint"] == str(tmp_path)


def test_sleeping_needs_to_be_prepared(session: SGLangSession, open_session: Callable[..., SGLangSession]) -> None:
    """Memory is given back only where SGLang was told at the start; awake again, it scores as before."""
    with pytest.raises(ConfigError, match="enable_memory_saver"):
        session.sleep()
    pair = [LoglikelihoodRequest(CONTEXT, " Paris")]
    with open_session(enable_memory_saver=True) as other:
        before = other.loglikelihood(pair)
        other.sleep()
        assert "released" in str(other.loglikelihood(pair)[0].error)
        other.wake()
        assert other.loglikelihood(pair) == before


def test_an_adapter_is_used_for_each_request(open_session: Callable[..., SGLangSession], tmp_path: Path) -> None:
    """It is loaded at the start, and named with each request."""
    with open_session({"adapter": str(tmp_path)}) as session:
        session.loglikelihood([LoglikelihoodRequest(CONTEXT, " Paris")])
        session.generate([GenerationRequest(prompt=CONTEXT, max_new_tokens=2)])
        assert session.library.arguments["lora_paths"] == {"evalkit": str(tmp_path)}
        assert {request["lora_path"] for request in asked(session)} == {"evalkit"}
