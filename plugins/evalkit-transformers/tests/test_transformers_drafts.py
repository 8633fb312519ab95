"""Guesses at a text's next tokens save passes and change no text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.decoding import group
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit.scoring import Drafter
from evalkit_transformers.session import TransformersSession

Watch = Callable[[TransformersSession], AbstractContextManager[list[int]]]
# Behind these the random model comes to repeat itself, sooner or later and in its own ways.
REPEATING = [[token] * 20 for token in (18, 40, 53, 94)]


@contextmanager
def drafting(session: TransformersSession, tokens: int) -> Iterator[None]:
    """Within it, the session guesses at most so many tokens ahead."""
    before, session.draft_tokens = session.draft_tokens, tokens
    try:
        yield
    finally:
        session.draft_tokens = before


def asked(session: TransformersSession, tokens: int, **values: object) -> list[GenerationOutput]:
    """The outputs with guesses of at most so many tokens, without their times."""
    requests = [GenerationRequest(input_ids=ids, **{"max_new_tokens": 60, **values}) for ids in REPEATING]  # type: ignore[arg-type]
    with drafting(session, tokens):
        outputs = session.generate(requests)
    untimed = [replace(output, timing=None, alternatives=()) for output in outputs]
    return [*untimed, *(replace(sample, timing=None) for output in outputs for sample in output.alternatives)]


def test_repetitions_need_fewer_passes(llama: TransformersSession, watch_tokens: Watch) -> None:
    """A text that repeats itself takes at most half as many passes, and is the same text."""
    with watch_tokens(llama) as plain:
        expected = asked(llama, 0)
    with watch_tokens(llama) as drafted:
        found = asked(llama, 8)
    assert [output.token_ids for output in found] == [output.token_ids for output in expected]
    assert len(plain) >= 60
    assert len(drafted) <= len(plain) / 2


def test_what_was_guessed_is_counted(llama: TransformersSession, watch_tokens: Watch) -> None:
    """Guesses go through the model, right or wrong, and count as computed."""
    before = llama.token_counts().computed
    with watch_tokens(llama) as seen:
        asked(llama, 8)
    assert llama.token_counts().computed - before == sum(seen)


@pytest.mark.parametrize(
    "values", [{"temperature": 0.7, "seed": 3, "n": 2}, {"temperature": 1.5, "seed": 1, "top_k": 5}]
)
def test_seeds_draw_the_same_texts(llama: TransformersSession, values: dict[str, object]) -> None:
    """Sampling checks guesses with the draws that it would have made anyway."""
    assert asked(llama, 8, **values) == asked(llama, 0, **values)


def test_a_stop_inside_a_guess_ends_the_text(llama: TransformersSession) -> None:
    """Right guesses behind a stop string, or beyond the limit, are not part of the answer."""
    whole = asked(llama, 0)[0]
    stop = whole.text[len(whole.text) // 2 :][:3]
    for values in ({"stop": (stop,)}, {"max_new_tokens": 17}, {"stop": (stop,), "min_new_tokens": 40}):
        found, expected = asked(llama, 8, **values), asked(llama, 0, **values)
        assert found == expected
    assert len(asked(llama, 8, stop=(stop,))[0].token_ids) < len(whole.token_ids)


def test_logprobs_are_those_of_single_steps(llama: TransformersSession) -> None:
    """Each token of a guess has the log-probability that a step of its own gives."""
    for output, other in zip(asked(llama, 8, logprobs=2), asked(llama, 0, logprobs=2), strict=True):
        assert output.logprobs is not None
        assert other.logprobs is not None
        assert [item.token_id for item in output.logprobs] == list(output.token_ids)
        assert [i.logprob for i in output.logprobs] == pytest.approx([i.logprob for i in other.logprobs], abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "mistral"])
@settings(max_examples=25, deadline=None, database=None)
@given(
    prompts=st.lists(st.lists(st.integers(3, 9), min_size=1, max_size=12), min_size=1, max_size=6),
    common=st.lists(st.integers(3, 9), max_size=30),
    noise=st.randoms(use_true_random=False),
    batch_size=st.integers(1, 4),
)
def test_any_right_and_wrong_guesses_change_no_text(
    name: str,
    request: pytest.FixtureRequest,
    prompts: list[list[int]],
    common: list[int],
    noise: Random,
    batch_size: int,
) -> None:
    """Whatever part of the guesses is right, in whatever rows, with sliding windows too: texts stay the same."""
    session: TransformersSession = request.getfixturevalue(name)
    requests = [
        GenerationRequest(input_ids=[*common, *prompt], max_new_tokens=20, temperature=float(number % 2), seed=number)
        for number, prompt in enumerate(prompts)
    ]
    with drafting(session, 0):
        expected = [output.token_ids for output in session.generate(requests)]
    whole = [[*common, *prompt, *ids] for prompt, ids in zip(prompts, expected, strict=True)]

    class Oracle(Drafter):
        """Knows how the texts will go on, and errs now and then."""

        def guess(self, most: int) -> list[int]:
            """The next tokens of a text that begins like this one, some of them wrong."""
            ids = self._ids[: self._length].tolist()
            known = next(text[len(ids) :] for text in whole if text[: len(ids)] == ids)
            return [token if noise.random() < 0.7 else 10 for token in known[: min(most, noise.randrange(9))]]

    with pytest.MonkeyPatch.context() as patch, drafting(session, 8):
        patch.setattr(group, "Drafter", Oracle)
        outputs = session.generate(requests, batch_size=batch_size)
    assert [output.token_ids for output in outputs] == expected
