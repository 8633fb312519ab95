"""Prompts wait for what is being read, so that engines which cache only what they have read read nothing twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalkit.scoring.forest import fresh_tokens
from evalkit.scoring.shared import common_length
from evalkit.scoring.waves import LEAST_SHARED, Waves

PREFIX = tuple(range(100))


def run(prompts: list[tuple[int, ...]]) -> tuple[int, int]:
    """Have prompts read, in steps that end together; tokens that went through the model, and the steps."""
    waves, running, read = Waves(), [], list[tuple[int, ...]]()
    computed = steps = 0
    for key, ids in enumerate(prompts):
        if waves.begin(key, ids):
            running.append(key)
    while running:
        steps += 1
        begun = running
        computed += sum(len(prompts[k]) - max((common_length(prompts[k], o) for o in read), default=0) for k in begun)
        read += [prompts[key] for key in begun]
        running = [ready for key in begun for ready in waves.ended(key)]
    return computed, steps


def test_what_is_shared_is_read_once() -> None:
    """Questions behind the same examples wait for them, choices for their question."""
    questions = [(*PREFIX, *range(q, q + 30)) for q in (1000, 2000, 3000)]
    prompts = [(*question, choice) for question in questions for choice in range(4)]
    computed, steps = run(prompts)
    assert computed == sum(fresh_tokens(prompts))
    assert steps == 3


def test_strangers_do_not_wait() -> None:
    """Prompts that share little begin at once."""
    prompts = [(*PREFIX[: LEAST_SHARED - 1], *range(n, n + 50)) for n in (1000, 2000, 3000)]
    assert run(prompts)[1] == 1


def test_one_that_is_withdrawn_holds_nobody() -> None:
    """Those that waited for a prompt begin when it is given up; one that waited itself is forgotten."""
    waves = Waves()
    assert waves.begin("first", (*PREFIX, 1))
    assert not waves.begin("second", (*PREFIX, 2))
    assert not waves.begin("third", (*PREFIX, 3))
    assert list(waves.ended("second", read=False)) == []
    assert list(waves.ended("first", read=False)) == ["third"]
    assert list(waves.ended("third")) == []
    assert waves.begin("fourth", (*PREFIX, 4))
    waves.forget()
    assert not waves.begin("fifth", (*PREFIX, 5))


@given(st.lists(st.lists(st.integers(0, 1), max_size=60).map(tuple), max_size=20))
def test_every_prompt_begins_once(prompts: list[tuple[int, ...]]) -> None:
    """Whatever they share, none is forgotten, and no more is read than one by one."""
    waves, begun = Waves(), list[int]()
    running = [key for key, ids in enumerate(prompts) if waves.begin(key, ids)]
    while running:
        begun += running
        running = [ready for key in running for ready in waves.ended(key)]
    assert sorted(begun) == list(range(len(prompts)))
