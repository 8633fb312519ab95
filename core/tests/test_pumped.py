"""Sessions over asynchronous libraries: the contract, prompts that wait for others, and errors that fail alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.errors import RequestError
from evalkit.prompts import Decode
from evalkit.pump import Pump
from evalkit.pumped import PumpedSession
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, TokenLogprob
from evalkit.scoring.logits import log_softmax, target_scores
from evalkit.scoring.prompts import Prompt, PromptLimits, PromptScores
from evalkit.scoring.stops import StopWatch
from evalkit.scoring.waves import Waves
from evalkit.testing.conformance import SessionConformance
from evalkit.testing.fake import ByteTokenizer, next_scores
from evalkit.writing import Progress, Writing

SHARED = "A long beginning that all of these prompts have. "


class Text(Writing):
    """A text whose replies are its tokens and its end."""

    def read(self, reply: Any) -> Progress:
        return Progress(*reply)

    def logprobs(self, reply: Any, first: int, last: int) -> tuple[TokenLogprob, ...]:
        return ()


class Library(PumpedSession):
    """A library in which each token takes a turn of the loop; texts that begin with "!" fail."""

    def __init__(self) -> None:
        super().__init__(ByteTokenizer(), pump=Pump(), max_length=256, batch_tokens=1024)
        self.limits = PromptLimits(next_ids=64, block=1)
        self.waves = Waves()
        self.seed_note = "no seeds"
        self.events: list[str] = []

    def ask_prompt(self, prompt: Prompt) -> AsyncIterator[Any]:
        return self.read(prompt)

    async def read(self, prompt: Prompt) -> AsyncIterator[Any]:
        self.events.append("begins")
        try:
            await asyncio.sleep(0)
            if prompt.ids[0] == ord("!"):
                raise ValueError("it begins with !")
            yield [next_scores(prompt.ids[:end]) for end in range(prompt.start, len(prompt.ids) + 1)]
        finally:
            self.events.append("ends")

    def scores_in(self, prompt: Prompt, reply: Any) -> PromptScores:
        logits = np.array(reply, np.float32)
        rows, targets = np.arange(prompt.scored), np.array(prompt.ids[prompt.start :], np.int32)
        scored = target_scores(logits, rows, targets, prompt.tops).part(0, prompt.scored)
        last = log_softmax(logits[-1:])[0]
        return PromptScores(scored, tuple(float(last[token]) for token in prompt.next_ids), int(last.argmax()))

    def ask_texts(self, work: Decode) -> list[tuple[Writing, AsyncIterator[Any]]]:
        if work.item.request.num_beams > 1:
            raise RequestError("no beams")
        return [(Text(work, sample, self.spell), self.write(work, sample)) for sample in range(work.item.request.n)]

    async def write(self, work: Decode, sample: int) -> AsyncIterator[Any]:
        request, ids = work.item.request, list[int]()
        watch, chance = StopWatch(request.stop, self.spell), np.random.default_rng([request.seed or 0, sample])
        while True:
            await asyncio.sleep(0)
            scores = np.array(next_scores([*work.item.prompt, *ids]))
            noise = chance.gumbel(size=len(scores)) if request.is_sampled else 0
            ids.append(int((scores + noise).argmax()))
            stopped = watch.push(ids[-1]) or ids[-1] in self.tokenizer.eos_token_ids
            if stopped and len(ids) >= request.min_new_tokens:
                yield list(ids), "stop"
                return
            if len(ids) >= request.max_new_tokens:
                yield list(ids), "length"
                return
            if work.parts:
                yield list(ids), None

    def gc(self) -> None:
        """Nothing to release."""

    def close(self) -> None:
        self.pump.close()


@pytest.fixture
def library() -> Iterator[Library]:
    with Library() as found:
        yield found


class TestPumped(SessionConformance):
    """The contract."""

    @pytest.fixture
    def session(self, library: Library) -> BaseInferenceSession:
        """The session under test."""
        return library


def test_a_prompt_that_fails_holds_nobody_back(library: Library) -> None:
    """Those that waited for it are read, and only its own request fails."""
    contexts = [f"!{SHARED}", f"{SHARED}one", f"{SHARED}two", f"!{SHARED}more"]
    outputs = library.loglikelihood([LoglikelihoodRequest(context, " end of it") for context in contexts])
    assert [output.error for output in outputs] == ["it begins with !", None, None, "it begins with !"]
    assert library.events.count("begins") == library.events.count("ends")


def test_prompts_that_share_much_are_read_one_behind_the_other(library: Library) -> None:
    """Strangers are read side by side; those that share their beginning wait until it is read."""
    library.loglikelihood([LoglikelihoodRequest(f"{n} is where it begins", " x") for n in range(5)])
    assert library.events[:5] == ["begins"] * 5
    library.events.clear()
    library.loglikelihood([LoglikelihoodRequest(SHARED + " and" * n, " x") for n in range(1, 4)])
    assert library.events[:3] == ["begins", "ends", "begins"]


def test_a_reader_who_leaves_stops_the_work(library: Library) -> None:
    """What is left of a call that is given up is not read, and the next call is answered."""
    requests = [(n, LoglikelihoodRequest(f"{SHARED}{n}", " x")) for n in range(20)]
    answers = library.loglikelihood_continuous(requests)
    next(answers)
    answers.close()
    assert len(library.pump) == 0
    assert len(list(library.loglikelihood_continuous(requests))) == 20


def test_seeds_that_do_not_count_are_noted(library: Library) -> None:
    """Only on outputs of sampled requests that have one, with a feed as with a list."""
    values: list[dict[str, Any]] = [{}, {"temperature": 1.0}, {"temperature": 1.0, "seed": 3}, {"seed": 3}]
    requests = [GenerationRequest(prompt="So", max_new_tokens=3, **chosen) for chosen in values]
    expected = [(), (), ("no seeds",), ()]
    assert [output.notes for output in library.generate(requests)] == expected
    served = dict(library.generate_live(iter(enumerate(requests)), wants_parts=lambda key: False))
    assert [served[key].notes for key in range(4)] == expected
