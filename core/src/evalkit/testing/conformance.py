"""The conformance suite: subclass it, give it a session, and pytest checks the whole contract.

class TestMyEngine(SessionConformance):
    @pytest.fixture(scope="class")
    def session(self):
        with MyEngine().build(Model(path=...)) as session:
            yield session
"""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.errors import RequestError
from evalkit.requests import (
    GenerationOutput,
    GenerationPart,
    GenerationRequest,
    LoglikelihoodRequest,
    RollingLoglikelihoodRequest,
)

CONTEXTS = ("The sky is", "Two and two make", "", "Once upon a time there was a king who", "A")
CONTINUATIONS = (" blue", " four", " seven hundred and twelve", "x", " a hill. Behind it")
EXACT = 1e-2
"""Tolerance up to which texts must not depend on the batch at all."""
EXAMPLES = "Question: is it so?\nAnswer: it is so.\n\n"
TEXT = "The river was low that year.\nNobody remembered a summer so dry, nor a harvest so early."


class SessionConformance:
    """Promises of BaseInferenceSession. Override `session`; set `chat` to False for engines without messages."""

    tolerance: ClassVar[float] = 1e-3
    """How far a log-probability may move with batch size and order (float rounding)."""
    chat: ClassVar[bool] = True
    rolling: ClassVar[bool] = True

    @pytest.fixture
    def session(self) -> BaseInferenceSession:
        """The session under test."""
        raise pytest.UsageError("a conformance suite overrides the fixture `session`")

    @pytest.fixture
    def pairs(self) -> list[LoglikelihoodRequest]:
        """Short and long, empty and shared contexts."""
        return [LoglikelihoodRequest(context, text) for context in CONTEXTS for text in CONTINUATIONS]

    # ── log-likelihoods ─────────────────────────────────────────────────────────────────────────────────
    def test_loglikelihood_answers_every_request_in_order(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest]
    ) -> None:
        """One output a request, in order: asking one alone gives the same as asking all."""
        outputs = session.loglikelihood(pairs)
        assert len(outputs) == len(pairs)
        for index in (0, 7, len(pairs) - 1):
            alone = session.loglikelihood([pairs[index]])[0]
            assert alone.logprob == pytest.approx(outputs[index].logprob, abs=self.tolerance)

    def test_logprobs_are_negative_finite_and_counted(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest]
    ) -> None:
        """A log-probability is at most 0, finite, and over at least one token."""
        for output in session.loglikelihood(pairs):
            assert output.error is None
            assert -math.inf < output.logprob <= 0
            assert output.token_count >= 1
            assert isinstance(output.is_greedy, bool)

    def test_token_logprobs_sum_to_the_logprob(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest]
    ) -> None:
        """Where an engine gives token log-probabilities, they add up."""
        for output in session.loglikelihood(pairs):
            if output.token_logprobs is not None:
                assert len(output.token_logprobs) == output.token_count
                assert sum(output.token_logprobs) == pytest.approx(output.logprob, abs=self.tolerance)

    def test_likely_tokens_stand_beside_scored_ones(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest]
    ) -> None:
        """`logprobs` gives that many tokens at each place, best first; a token that is the best has its very value."""
        plain = session.loglikelihood(pairs)
        asked = [replace(pair, logprobs=index % 4) for index, pair in enumerate(pairs)]
        for index, (output, expected) in enumerate(zip(session.loglikelihood(asked), plain, strict=True)):
            if output.top_logprobs is None or output.token_logprobs is None:
                pytest.skip("the engine does not say which tokens are likely")
            assert output.logprob == pytest.approx(expected.logprob, abs=self.tolerance)
            assert [len(top) for top in output.top_logprobs] == [index % 4] * output.token_count
            assert all(list(top) == sorted(top, key=lambda pair: -pair[1]) for top in output.top_logprobs)
            if index % 4:
                best = [top[0][1] for top in output.top_logprobs]
                assert all(logprob <= first for logprob, first in zip(output.token_logprobs, best, strict=True))
                assert output.is_greedy == (list(output.token_logprobs) == best)

    @pytest.mark.parametrize("batch_size", [1, 2, 64])
    def test_scores_do_not_depend_on_batch_size_or_order(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest], batch_size: int
    ) -> None:
        """Batches and order change no score."""
        expected = session.loglikelihood(pairs)
        outputs = session.loglikelihood(pairs[::-1], batch_size=batch_size)[::-1]
        for output, other in zip(outputs, expected, strict=True):
            assert output.logprob == pytest.approx(other.logprob, abs=self.tolerance)
            assert output.token_count == other.token_count

    def test_loglikelihood_continuous_names_every_request_once(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest]
    ) -> None:
        """Each request id comes back once, with the score that `loglikelihood` gives."""
        expected = session.loglikelihood(pairs)
        found = dict(session.loglikelihood_continuous((f"id-{i}", pair) for i, pair in enumerate(pairs)))
        assert sorted(found) == sorted(f"id-{i}" for i in range(len(pairs)))
        for index, output in enumerate(expected):
            assert found[f"id-{index}"].logprob == pytest.approx(output.logprob, abs=self.tolerance)

    def test_rolling_scores_every_token_once(self, session: BaseInferenceSession) -> None:
        """A text's score is that of its tokens after an empty context."""
        if not self.rolling:
            pytest.skip("this kind of model has no rolling log-likelihood")
        rolled = session.loglikelihood_rolling([RollingLoglikelihoodRequest(TEXT)])[0]
        scored = session.loglikelihood([LoglikelihoodRequest("", TEXT)])[0]
        assert rolled.error is None
        assert rolled.token_count == scored.token_count
        assert rolled.logprob == pytest.approx(scored.logprob, abs=self.tolerance * rolled.token_count)

    def test_a_context_that_is_too_long_keeps_its_end(self, session: BaseInferenceSession) -> None:
        """A context longer than the model's keeps its last tokens, scores as they do, and the output says so."""
        limit = getattr(session, "max_length", None)
        if limit is None or limit > 1024:
            pytest.skip("the context is too long to be exceeded in a test")
        words = " ".join(f"number {n}" for n in range(limit))
        output, other = session.loglikelihood(
            [LoglikelihoodRequest(start + words, " and so on") for start in ("", "Something else. ")]
        )
        assert output.error is None
        assert output.logprob == pytest.approx(other.logprob, abs=self.tolerance)
        assert any(note.startswith("truncated") for note in output.notes)

    def test_characters_may_span_tokens(self, session: BaseInferenceSession) -> None:
        """Text of many alphabets is scored whole, and a character cut by the context's end raises nothing."""
        texts = ("Ünïcödé ", "日本語のテキスト", "🙂🙃 👩‍👩‍👧", "e\u0301")
        for output in session.loglikelihood([LoglikelihoodRequest(a, b) for a in texts for b in texts]):
            assert output.error is None
            assert output.token_count >= 1
            assert -math.inf < output.logprob <= 0
        outputs = session.generate([GenerationRequest(prompt=text, max_new_tokens=5) for text in texts])
        assert all(output.error is None for output in outputs)

    def test_a_request_that_cannot_be_answered_fails_alone(self, session: BaseInferenceSession) -> None:
        """It gets an output of its own, with the error; those beside it are answered as without it."""
        good, bad = LoglikelihoodRequest("The sky is", " blue"), LoglikelihoodRequest("The sky is", "")
        outputs = session.loglikelihood([good, bad, good])
        alone = session.loglikelihood([good])[0]
        # An engine may well find an answer: nothing scores 0, and no tokens are an empty text.
        assert outputs[1].error is not None or outputs[1].logprob == 0
        assert outputs[0].error is outputs[2].error is None
        assert outputs[2].logprob == pytest.approx(alone.logprob, abs=self.tolerance)
        fine = GenerationRequest(prompt="The sky is", max_new_tokens=4)
        texts = session.generate([fine, GenerationRequest(prompt="The sky is", max_new_tokens=0), fine])
        assert texts[1].finish_reason == "error" if texts[1].error is not None else texts[1].text == ""
        assert texts[0].error is texts[2].error is None
        assert texts[0].text == texts[2].text == session.generate([fine])[0].text

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def test_generate_keeps_order_and_limits(self, session: BaseInferenceSession) -> None:
        """One output a request, in order, none longer than its own max_new_tokens."""
        limits = (1, 5, 3, 8)
        requests = [GenerationRequest(prompt=f"Number {n} is", max_new_tokens=n) for n in limits]
        outputs = session.generate(requests)
        assert len(outputs) == len(requests)
        for output, limit in zip(outputs, limits, strict=True):
            assert output.error is None
            assert len(output.token_ids) <= limit
            assert output.finish_reason in ("stop", "length")

    def test_greedy_generation_does_not_depend_on_its_batch(self, session: BaseInferenceSession) -> None:
        """A request gives the same text alone as beside others."""
        requests = [GenerationRequest(prompt=context or "So", max_new_tokens=6) for context in CONTEXTS]
        together = [output.text for output in session.generate(requests)]
        assert [session.generate([request])[0].text for request in requests] == together

    def test_stop_string_is_not_returned(self, session: BaseInferenceSession) -> None:
        """Output ends before the first stop string."""
        free = session.generate([GenerationRequest(prompt="The sky is", max_new_tokens=12)])[0]
        # Before the last of a character's bytes the replacement character stands for it, and would stop there.
        whole = free.text.replace("\ufffd", "")
        if len(whole) < 3:
            pytest.skip("the model generates too little text to stop in")
        stop = whole[len(whole) // 2]
        output = session.generate([GenerationRequest(prompt="The sky is", max_new_tokens=12, stop=(stop,))])[0]
        assert output.text == free.text.split(stop)[0]
        assert output.finish_reason == "stop"

    def test_each_request_keeps_its_own_values(self, session: BaseInferenceSession) -> None:
        """Stops, limits, temperatures and seeds hold for their own request, whatever is beside it."""
        values: list[dict[str, Any]] = [
            {"max_new_tokens": 12},
            {"max_new_tokens": 12, "stop": ("e", " ")},
            {"max_new_tokens": 5, "temperature": 1.0, "seed": 1},
            {"max_new_tokens": 9, "temperature": 0.7, "top_k": 20, "seed": 2},
            {"max_new_tokens": 7, "temperature": 1.0, "top_p": 0.8, "min_p": 0.05, "seed": 3},
            {"max_new_tokens": 12, "min_new_tokens": 6, "stop": ("e",)},
        ]
        requests = [GenerationRequest(prompt="Once upon a time", **chosen) for chosen in values]
        together = session.generate(requests)
        if self.tolerance <= EXACT:
            # Where scores move with the batch, so may a draw.
            alone = [session.generate([request])[0] for request in requests]
            assert [output.token_ids for output in together] == [output.token_ids for output in alone]
        for output, chosen in zip(together, values, strict=True):
            assert chosen.get("min_new_tokens", 0) <= len(output.token_ids) <= chosen["max_new_tokens"]
        assert not any(stop in together[1].text for stop in ("e", " "))

    def test_generate_continuous_names_every_request_once(self, session: BaseInferenceSession) -> None:
        """Each request id comes back once, in whatever order, with the text that `generate` gives."""
        requests = {f"id-{i}": GenerationRequest(prompt=f"Item {i}:", max_new_tokens=4) for i in range(5)}
        pairs = list(session.generate_continuous(iter(requests.items())))
        assert sorted(key for key, _ in pairs) == sorted(requests)
        texts = {key: output.text for key, output in pairs}
        expected = session.generate(list(requests.values()))
        assert [texts[key] for key in requests] == [output.text for output in expected]

    def test_requests_may_join_and_leave_running_ones(self, session: BaseInferenceSession) -> None:
        """A server's requests have the texts that they have alone, spelled by their parts; withdrawn ones end too."""
        requests = [GenerationRequest(prompt=c or "So", max_new_tokens=4 + i) for i, c in enumerate(CONTEXTS)]
        expected = [output.text for output in session.generate(requests)]
        feed = [item for pair in enumerate(requests) for item in (pair, None)]
        arrivals = iter([*feed, ("gone", requests[0]), ("gone", None), None])
        parts: dict[Any, str] = {}
        found: dict[Any, GenerationOutput] = {}
        for key, answer in session.generate_live(arrivals, wants_parts=lambda key: key != 1):
            if isinstance(answer, GenerationPart):
                parts[key] = parts.get(key, "") + answer.text
            else:
                assert found.setdefault(key, answer) is answer
        assert [found[key].text for key in range(len(requests))] == expected
        assert found["gone"].error or found["gone"].text == expected[0]
        assert all(found[key].text == text for key, text in parts.items() if not found[key].error)
        assert 1 not in parts

    def test_messages_are_rendered(self, session: BaseInferenceSession) -> None:
        """Chat messages are answered, or refused by an error on that output alone."""
        messages = [{"role": "user", "content": "Say hello."}]
        output = session.generate([GenerationRequest(messages=messages, max_new_tokens=4)])[0]
        if self.chat:
            assert output.error is None
            assert "Say hello." in session.apply_chat_template(messages)
        else:
            assert output.error
            with pytest.raises(RequestError):
                session.apply_chat_template(messages)

    def test_is_greedy_agrees_with_generation(self, session: BaseInferenceSession) -> None:
        """What greedy decoding writes after a context is scored as greedy."""
        produced = session.generate([GenerationRequest(prompt="Two and two make", max_new_tokens=3)])[0]
        text = produced.text.rstrip()
        if not text or text != produced.text:
            pytest.skip("the generated text does not survive encoding")
        scored = session.loglikelihood([LoglikelihoodRequest("Two and two make", text)])[0]
        if scored.token_count == len(produced.token_ids):
            assert scored.is_greedy

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────
    def test_gc_between_tasks_changes_nothing(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest]
    ) -> None:
        """After gc the session scores as before."""
        before = session.loglikelihood(pairs[:3])
        session.gc()
        after = session.loglikelihood(pairs[:3])
        assert [o.logprob for o in after] == pytest.approx([o.logprob for o in before], abs=self.tolerance)

    def test_a_kept_prefix_changes_no_score(
        self, session: BaseInferenceSession, pairs: list[LoglikelihoodRequest]
    ) -> None:
        """Call after call behind one beginning, as at a server, with other work and an emptied cache between."""
        long = [replace(pair, context=EXAMPLES + pair.context, logprobs=1) for pair in pairs]
        calls = [long[first : first + 2] for first in range(0, len(long), 2)]
        expected = [[output.token_logprobs for output in session.loglikelihood(call)] for call in calls]
        session.keep_prefixes()
        try:
            for between in (lambda: None, lambda: session.generate([GenerationRequest(prompt="A")]), session.gc):
                for call, scores in zip(calls, expected, strict=True):
                    for output, score in zip(session.loglikelihood(call), scores, strict=True):
                        assert output.token_logprobs == pytest.approx(score, abs=self.tolerance)
                between()
        finally:
            session.keep_prefixes(False)

    def test_describe_execution_is_stable_plain_data(self, session: BaseInferenceSession) -> None:
        """The description can be stored as JSON and says the same twice."""
        described: dict[str, Any] | None = session.describe_execution()
        assert json.loads(json.dumps(described)) == described
        assert session.describe_execution() == described

    def test_empty_lists_are_answered(self, session: BaseInferenceSession) -> None:
        """Nothing asked, nothing answered."""
        assert session.generate([]) == []
        assert session.loglikelihood([]) == []
        assert session.loglikelihood_rolling([]) == []


def check_close_returns_memory(open_session: Callable[[], BaseInferenceSession], *, mib: int = 32) -> None:
    """Open, use and close sessions: this process must not grow by more than so much. Linux only."""
    requests = [LoglikelihoodRequest(context, text) for context in CONTEXTS for text in CONTINUATIONS]

    def used() -> int:
        gc.collect()
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    before = 0
    for turn in range(8):
        with open_session() as session:
            session.loglikelihood(requests)
            session.generate([GenerationRequest(prompt="The sky is", max_new_tokens=4)])
        if turn == 2:
            # What a library keeps for its whole life is there by now.
            before = used()
    assert used() - before < mib * 2**20


def check_close_is_idempotent(session: BaseInferenceSession) -> None:
    """Call it last, in a test of its own: closing twice is allowed."""
    session.close()
    session.close()
