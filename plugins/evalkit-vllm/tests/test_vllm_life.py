"""Sessions that come and go: other options, other weights, what cannot be opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.errors import ConfigError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest
from evalkit.scoring import Span
from evalkit.testing.tiny import tiny_llama
from evalkit_vllm.engine import VLLM
from evalkit_vllm.session import VLLMSession

QUESTION = "What is the capital of France? The capital of France is Paris, and the capital of Spain is "
TEXT = "The sun is a star, the earth is a planet, and the moon goes around the earth in about one month. " * 5


def test_scores_do_not_depend_on_the_cache(llama_path: Path, open_session: Callable[..., VLLMSession]) -> None:
    """Without it each prompt is read anew, and scores stay; so they do where prompts are cut in small pieces."""
    found = []
    for options in ({}, {"enable_prefix_caching": False}, {"prompt_logprob_tokens": 40}):
        with open_session(llama_path, **options) as session:
            ids = tuple(session.tokenizer.encode_batch([TEXT])[0])[:120]
            spans = [Span((*ids[:cut], *ids[:tail]), cut) for cut in (1, 31, 64, 65) for tail in (1, 2, 50)]
            found.append(session.score_batch(spans))
    for scored in zip(*found, strict=True):
        assert scored[0].logprobs == pytest.approx(scored[1].logprobs, abs=1e-3)
        assert scored[0].logprobs == pytest.approx(scored[2].logprobs, abs=1e-3)
        assert scored[0].is_greedy == scored[1].is_greedy == scored[2].is_greedy


def test_reloading_takes_another_checkpoint(
    llama_path: Path, tmp_path: Path, open_session: Callable[..., VLLMSession]
) -> None:
    """After `reload` scores are those of the other weights, and so is the fingerprint that results show."""
    other = tiny_llama(tmp_path, seed=1).hf
    request = LoglikelihoodRequest(QUESTION, "Madrid")
    with open_session(other) as session:
        expected_score, described = session.loglikelihood([request])[0].logprob, session.describe_execution()
    with open_session(llama_path) as session:
        first = session.loglikelihood([request])[0].logprob
        assert first != pytest.approx(expected_score, abs=1e-2)
        session.reload(str(other))
        assert session.loglikelihood([request])[0].logprob == pytest.approx(expected_score, abs=1e-3)
        assert session.describe_execution()["checkpoint"] == described["checkpoint"]
        with pytest.raises(ModelNotFoundError, match="does not exist"):
            session.reload(str(tmp_path / "nowhere"))
        with pytest.raises(ModelError, match="enable_sleep_mode"):
            session.sleep()


def test_one_model_in_a_process(llama_path: Path, open_session: Callable[..., VLLMSession]) -> None:
    """A second session beside an open one is refused, rather than ending it."""
    with open_session(llama_path) as session:
        with pytest.raises(ModelError, match="one model in a process"):
            open_session(llama_path)
        assert session.loglikelihood([LoglikelihoodRequest(QUESTION, "Madrid")])[0].error is None


def test_closing_twice_is_allowed(llama_path: Path, open_session: Callable[..., VLLMSession]) -> None:
    """The second close does nothing, and another session can be opened afterwards."""
    for _ in range(2):
        session: BaseInferenceSession = open_session(llama_path)
        session.close()
        session.close()


@pytest.mark.parametrize(
    ("options", "model", "cause"),
    [
        ({"llm_args": {"dtype": "float32"}}, {}, "option of its own"),
        ({"llm_args": {"runner": "pooling"}}, {}, "not for llm_args"),
        ({"llm_args": {"no_such_argument": 1}}, {}, "no_such_argument"),
        ({"max_model_len": 100}, {"max_length": 200}, "contradict"),
        ({"max_model_len": 100_000}, {}, "context is 256"),
        ({"data_parallel_size": 2}, {}, "data parallelism"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    llama_path: Path, options: dict[str, Any], model: dict[str, Any], cause: str
) -> None:
    """Unknown and contradictory options are named, with what to do."""
    with pytest.raises(ConfigError, match=cause) as caught:
        VLLM(**options).build(Model(str(llama_path), **model))
    assert "\n" not in str(caught.value)


def test_models_that_cannot_be_loaded_are_one_line(tmp_path: Path, llama_path: Path) -> None:
    """A folder without a model, a type that does not exist, an adapter that is not there."""
    with pytest.raises(ModelNotFoundError):
        VLLM().build(Model(str(tmp_path)))
    with pytest.raises(ModelError, match="dtype"):
        VLLM(dtype="float7").build(Model(str(llama_path)))
    with pytest.raises(ModelNotFoundError, match="adapter"):
        VLLM(adapter=str(tmp_path / "none")).build(Model(str(llama_path)))
