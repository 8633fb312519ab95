"""Transformers' continuous batching manager answers what our own scheduler answers, and leaves it what it cannot."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.requests import GenerationRequest
from evalkit_transformers import upstream
from evalkit_transformers.engine import Transformers
from evalkit_transformers.session import TransformersSession

SMALL = {"num_blocks": 64, "page_size": 16, "max_batch_tokens": 128}
PROMPTS = (
    "The sky is",
    "A",
    "There were three apples on the table and she ate one of them, then another;",
    "The sky was",
)


def build(path: Path, **options: Any) -> TransformersSession:
    """A float32 session on a tiny model."""
    return TransformersSession(Transformers(dtype="float32", device="cpu", **options), Model(str(path)))


@pytest.fixture(scope="module")
def managed(llama_path: Path) -> Iterator[TransformersSession]:
    """A session that generates by the manager."""
    with build(llama_path, scheduler="transformers", scheduler_options=SMALL) as session:
        yield session


def test_it_is_used_and_said(managed: TransformersSession, llama: TransformersSession, monkeypatch: Any) -> None:
    """The description names who generates; on a CPU it is used only where it is asked for."""
    assert managed.describe_execution()["generation"] == "Transformers' continuous batching"
    assert llama.describe_execution()["generation"] == "continuous, guessing ahead"
    monkeypatch.setattr(upstream, "stream", lambda session, items: (_ for _ in ()).throw(AssertionError))
    llama.generate([GenerationRequest(prompt="A", max_new_tokens=2)])
    with pytest.raises(AssertionError):
        managed.generate([GenerationRequest(prompt="A", max_new_tokens=2)])


def test_texts_are_those_of_our_own_scheduler(managed: TransformersSession, llama: TransformersSession) -> None:
    """Greedy texts are equal, each with its own limit, and counted."""
    requests = [GenerationRequest(prompt=p, max_new_tokens=3 + 4 * i) for i, p in enumerate(PROMPTS)]
    before = managed.token_counts().computed
    found, expected = managed.generate(requests), llama.generate(requests)
    assert [o.token_ids for o in found] == [o.token_ids for o in expected]
    assert [o.finish_reason for o in found] == ["length"] * 4
    assert [o.usage for o in found] == [o.usage for o in expected]
    assert managed.token_counts().computed > before


def test_stop_strings_and_end_tokens_end_a_text(managed: TransformersSession, llama: TransformersSession) -> None:
    """A stop string is cut off, and its request stops while the others go on."""
    (plain,) = llama.generate([GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12)])
    stop = plain.text[3:6]
    requests = [
        GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12, stop=(stop,)),
        GenerationRequest(prompt=PROMPTS[2], max_new_tokens=30),
    ]
    found, expected = managed.generate(requests), llama.generate(requests)
    assert [(o.text, o.finish_reason) for o in found] == [(o.text, o.finish_reason) for o in expected]
    assert found[0].finish_reason == "stop"
    assert len(found[1].token_ids) == 30


def test_what_it_cannot_do_exactly_is_done_by_our_own(
    managed: TransformersSession, llama: TransformersSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds, samples, log-probabilities and least lengths are honoured in the same call."""
    asked: list[int] = []
    real = upstream.stream
    monkeypatch.setattr(upstream, "stream", lambda s, items: real(s, [asked.append(i.index) or i for i in items]))
    requests = [
        GenerationRequest(prompt="A", max_new_tokens=5, temperature=1.0, seed=3),
        GenerationRequest(prompt="A", max_new_tokens=5, logprobs=2),
        GenerationRequest(prompt="A", max_new_tokens=5, min_new_tokens=5),
        GenerationRequest(prompt="A", max_new_tokens=5),
    ]
    found, expected = managed.generate(requests), llama.generate(requests)
    assert [o.token_ids for o in found] == [o.token_ids for o in expected]
    assert asked == [3]


def test_what_a_failed_manager_leaves_is_answered(
    managed: TransformersSession, llama: TransformersSession, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Where the manager's thread ends, our own scheduler goes on, and a warning says so."""
    manager = transformers.generation.continuous_batching.ContinuousBatchingManager
    monkeypatch.setattr(manager, "_generation_step", lambda self: (_ for _ in ()).throw(RuntimeError("broken")))
    monkeypatch.setattr(upstream, "WAIT", 0.05)
    requests = [GenerationRequest(prompt=p, max_new_tokens=4) for p in PROMPTS]
    with caplog.at_level(logging.WARNING, logger="evalkit_transformers.decode"):
        found = managed.generate(requests)
    assert [o.token_ids for o in found] == [o.token_ids for o in llama.generate(requests)]
    assert "own scheduler" in caplog.text


def test_bad_options_are_one_line(llama_path: Path, t5_path: Path) -> None:
    """Unknown options, and a model that the manager cannot take, are refused at load."""
    with pytest.raises(ConfigError, match="scheduler_options are refused"):
        build(llama_path, scheduler="transformers", scheduler_options={"page_sise": 16})
    with pytest.raises(ConfigError, match="decoder-only"):
        build(t5_path, scheduler="transformers")
