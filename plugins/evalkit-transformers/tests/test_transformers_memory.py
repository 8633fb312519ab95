"""Memory that runs out changes no answer; a request that does not fit alone fails alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_sessions import prompt_ids
from torch import Tensor

from evalkit.errors import OutOfMemoryError
from evalkit.scoring import Span
from evalkit.testing.reference import (
    PAIRS,
    PROMPTS,
    Score,
    check_score,
    greedy_requests,
    same_answer,
)
from evalkit_transformers import decode
from evalkit_transformers.session import TransformersSession


@functools.cache
def alone(session: TransformersSession) -> list[Score]:
    """The scores of all pairs, each asked on its own."""
    outputs = [session.loglikelihood([pair])[0] for pair in PAIRS]
    return [(list(output.token_logprobs or ()), output.is_greedy) for output in outputs]


def limit_memory(
    monkeypatch: pytest.MonkeyPatch, session: TransformersSession, runs: Any, fits: Callable[[Tensor], bool]
) -> list[bool]:
    """Let real allocations fail for inputs that do not fit; returns which did, as `runs` tries them."""
    tried: list[bool] = []
    forward = runs.forward

    def limited(*args: Any, **inputs: Any) -> Any:
        tried.append(fits(inputs["input_ids"]))
        if not tried[-1]:
            torch.empty(1 << 50)
        return forward(*args, **inputs)

    monkeypatch.setattr(runs, "forward", limited)
    # Back-off lowers it for good.
    monkeypatch.setattr(session, "batch_tokens", session.batch_tokens)
    return tried


# ── scores ──────────────────────────────────────────────────────────────────────────────────────────────
def test_memory_that_runs_out_changes_no_score(tiny: TransformersSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are halved until they fit, and later ones are small from the start; the scores stay."""
    expected = alone(tiny)
    tried = limit_memory(monkeypatch, tiny, tiny, lambda ids: ids.numel() <= 120)
    for score, output in zip(expected, tiny.loglikelihood(PAIRS), strict=True):
        check_score(output, score)
    assert not all(tried)
    tried.clear()
    tiny.loglikelihood(PAIRS)
    assert all(tried)


def test_a_request_that_does_not_fit_alone_fails_alone(
    llama_rows: TransformersSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request too large for the memory gets an error; all others get their scores."""
    expected = alone(llama_rows)
    lengths = [len(pair.context) + len(pair.continuation) - 1 for pair in llama_rows.encode(PAIRS)]
    longest = max(lengths)
    limit_memory(monkeypatch, llama_rows, llama_rows, lambda ids: ids.shape[1] < longest)
    outputs = llama_rows.loglikelihood(PAIRS)
    assert longest in lengths
    for length, score, output in zip(lengths, expected, outputs, strict=True):
        if length == longest:
            assert "out of memory" in (output.error or "")
        else:
            check_score(output, score)


def test_without_any_memory_every_request_has_an_error(
    tiny: TransformersSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no pass fits, each request gets an error, and none a score."""
    limit_memory(monkeypatch, tiny, tiny, lambda ids: False)
    outputs = tiny.loglikelihood(PAIRS)
    assert len(outputs) == len(PAIRS)
    assert all("out of memory" in (output.error or "") for output in outputs)


def test_other_errors_are_not_taken_for_memory(llama: TransformersSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not about memory is not retried in smaller batches."""
    calls = 0

    def broken(**inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(llama, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        llama.loglikelihood(PAIRS)
    assert calls == 1


def test_an_accelerators_memory_error_is_one_too(llama: TransformersSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.OutOfMemoryError becomes evalkit's own, which the core answers with a smaller batch."""

    def full(**inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(llama, "forward", full)
    with pytest.raises(OutOfMemoryError):
        llama.score_batch([Span((1, 40, 41), 1), Span((1, 42, 43), 2)])


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["llama", "llama_rows"])
def test_memory_that_runs_out_changes_no_text(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit at once is generated in smaller batches, seeds included."""
    session: TransformersSession = request.getfixturevalue(name)
    requests = [replace(item, temperature=1.2, seed=index) for index, item in enumerate(greedy_requests())]
    expected = session.generate(requests)
    longest = max(len(prompt_ids(session, prompt)) for prompt in PROMPTS)
    tried = limit_memory(monkeypatch, session, session.model, lambda ids: ids.numel() <= longest)
    outputs = session.generate(requests)
    assert not all(tried)
    assert all(same_answer(output, other) for output, other in zip(outputs, expected, strict=True))


@pytest.mark.parametrize("culprit", [0, 2, 4])
@pytest.mark.parametrize(("name", "beams"), [("llama", 1), ("llama_rows", 1), ("llama_rows", 2)])
def test_a_request_that_exhausts_the_memory_fails_alone(
    name: str, beams: int, culprit: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one request exhausts the memory, it alone fails, whichever it is, and none is answered twice."""
    session: TransformersSession = request.getfixturevalue(name)
    requests = [replace(item, num_beams=beams) for item in greedy_requests()]
    # A token that only the culprit has, in its prompt.
    mark = 380
    ids = prompt_ids(session, PROMPTS[culprit])
    requests[culprit] = replace(requests[culprit], prompt=None, input_ids=[*ids[:1], mark, *ids[1:]])
    expected = session.generate(requests)
    assert all(mark not in output.token_ids for index, output in enumerate(expected) if index != culprit)
    limit_memory(monkeypatch, session, session.model, lambda ids: not bool((ids == mark).any()))
    found = list(session.generate_continuous(enumerate(requests)))
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    for index, output in found:
        if index == culprit:
            assert output.finish_reason == "error"
            assert "out of memory" in (output.error or "")
        else:
            assert same_answer(output, expected[index])


def test_generation_gives_back_what_its_slots_left(llama: TransformersSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed memory goes back to the system once all texts are there, not after each."""
    given_back: list[bool] = []
    monkeypatch.setattr(decode, "return_freed_memory", lambda: given_back.append(True))
    llama.generate(greedy_requests())
    assert given_back == [True]
