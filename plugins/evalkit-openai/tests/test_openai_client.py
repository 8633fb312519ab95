"""Infrastructure that fails is never a wrong answer: retries, limits, refusals, and what happens to the key."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit_openai.client import GIVE_UP, error_message, retry_after
from evalkit_openai.engine import OpenAICompatible
from evalkit_openai.limits import TokenBucket

ASK = GenerationRequest(prompt="The sky is", max_new_tokens=5)
KEY = "very-private-key-0123456789"


def test_what_may_pass_is_tried_again(kit: Any, no_waiting: None) -> None:
    """Overload, failures of the server, cut connections and garbage are asked again until the answer is there."""
    double = kit.serve()
    session = kit.connect(double)
    expected = session.generate([ASK])[0]
    status = kit.faults["status"]
    faults = [status(429), status(500), status(503), status(408), kit.faults["cut"], kit.faults["garbage"]]
    double.faults += faults
    double.asked.clear()
    assert session.generate([ASK]) == [expected]
    assert len(double.bodies("/v1/completions")) == len(faults) + 1


def test_retry_after_is_honoured(kit: Any) -> None:
    """The server's own wait is kept to."""
    double = kit.serve()
    session = kit.connect(double)
    session.generate([ASK])
    double.faults.append(kit.faults["status"](429, Retry_After="1"))
    started = time.monotonic()
    assert session.generate([ASK])[0].error is None
    assert time.monotonic() - started >= 1


def test_retry_after_may_be_a_date() -> None:
    """Seconds or a date; nonsense is ignored, and no wait is endless."""
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after": "999999"}) == 300
    assert 50 < (retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)}) or 0) <= 60
    assert retry_after({"retry-after": formatdate(time.time() - 60, usegmt=True)}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_what_fails_for_good_is_an_error(kit: Any, no_waiting: None) -> None:
    """After the last retry the output has the error and no text; requests beside it are answered."""
    double = kit.serve()
    session = kit.connect(double, retries=2, batch_size=0)
    session.generate([ASK])
    double.faults += [kit.faults["status"](500, "out of order")] * 3
    failed, fine = session.generate([ASK, ASK])
    assert (failed.finish_reason, failed.text) == ("error", "")
    assert "(3 attempts): 500: out of order" in failed.error
    assert fine.error is None


def test_an_answer_without_choices_is_an_error(kit: Any, no_waiting: None) -> None:
    """An empty answer is asked for again, and then is an error, not an empty text."""
    double = kit.serve()
    session = kit.connect(double, batch_size=0)
    session.generate([ASK])
    double.faults += [kit.faults["empty"]] * 3
    failed, fine = session.generate([ASK, ASK])
    assert "nothing usable: the answer has no choices" in failed.error
    assert fine.error is None


@pytest.mark.parametrize("code", [400, 404, 413, 422])
def test_a_refused_request_fails_alone(kit: Any, code: int) -> None:
    """It is asked once, and its error is the server's message."""
    double = kit.serve()
    session = kit.connect(double, batch_size=0)
    session.generate([ASK])
    double.asked.clear()
    double.faults.append(kit.faults["status"](code, "too hot"))
    failed, fine = session.generate([ASK, ASK])
    assert failed.error == f"{code}: too hot"
    assert fine.error is None
    assert len(double.bodies("/v1/completions")) == 2


def test_a_server_that_is_gone_ends_the_run(kit: Any, no_waiting: None) -> None:
    """After some requests in a row the others are not tried: one line says how to go on."""
    double = kit.serve()
    session = kit.connect(double, retries=0, batch_size=1)
    session.generate([ASK])
    double.faults += [kit.faults["status"](500)] * 100
    found = []
    with pytest.raises(ModelError, match="See to the server, then: evalkit resume"):
        found += session.generate_continuous((number, ASK) for number in range(50))
    with pytest.raises(ModelError, match=f"{GIVE_UP} requests in a row"):
        kit.connect(double, retries=0).generate([ASK] * 50)


def test_a_refused_key_ends_the_run_without_showing_it(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the variable; the key is not in it, even where the server repeats it."""
    monkeypatch.setenv("MY_KEY", KEY)
    double = kit.serve(key="another")
    session = kit.connect(double, api_key_env="MY_KEY")
    with pytest.raises(ModelError, match="environment variable MY_KEY") as caught:
        session.generate([ASK])
    assert KEY not in str(caught.value)
    assert "Bearer ***" in str(caught.value)


def test_the_key_and_headers_come_from_the_environment(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is sent as a bearer token; a header's value may name a variable, too."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MY_TEAM", "blue")
    double = kit.serve(key=KEY)
    session = kit.connect(double, headers={"X-Team": "$MY_TEAM"})
    assert session.generate([ASK])[0].error is None
    assert double.headers[-1]["x-team"] == "blue"
    assert KEY not in repr(session.engine)
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE, which is not set"):
        kit.connect(double, headers={"X-Team": "${NOT_SET_ANYWHERE}"})


def test_a_key_is_no_name_of_a_variable() -> None:
    """A key given as `api_key_env` is refused, and not shown."""
    with pytest.raises(ValueError, match="not a key") as caught:
        OpenAICompatible(api_key_env="sk-proj-abcdef")
    assert "abcdef" not in str(caught.value)


def test_a_server_that_is_down_is_told_at_once(kit: Any) -> None:
    """One line names the address and the next step, without a password."""
    with pytest.raises(ModelError, match="base_url") as caught:
        OpenAICompatible(base_url="http://me:secret@127.0.0.1:9/v1", retries=0).build(_model("fake"))
    assert "127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://here/v1", "http://", "not an address"])
def test_a_wrong_address_is_one_line(url: str) -> None:
    """An address without scheme or host is refused before anything is sent."""
    with pytest.raises(ConfigError, match="Give one such as http://localhost:8000/v1"):
        OpenAICompatible(base_url=url).build(_model("fake"))


def test_the_address_of_a_route_will_do(kit: Any) -> None:
    """The address that lm-evaluation-harness wants is taken, too."""
    double = kit.serve()
    for route in ("/completions", "/chat/completions", "/"):
        assert kit.connect(double, base_url=double.url + route).client.url == double.url


def test_an_unknown_model_is_named(kit: Any) -> None:
    """The models that the server lists are suggested."""
    with pytest.raises(ModelNotFoundError, match=r"no model 'fakes'\. Did you mean 'fake'"):
        kit.connect(kit.serve(), model="fakes")


def test_requests_in_flight_are_bounded_and_refilled(kit: Any) -> None:
    """As many as asked for are in flight, and no more; 0 is one at a time; the run's batch size comes first."""
    for own, asked, most in ((4, None, 4), (0, None, 1), (4, 7, 7)):
        double = kit.serve(delay=0.05)
        session = kit.connect(double, batch_size=own)
        assert session.generate([ASK])[0].error is None
        double.busiest = 0
        outputs = list(session.generate_continuous(((n, ASK) for n in range(16)), batch_size=asked))
        assert sorted(key for key, _ in outputs) == list(range(16))
        assert double.busiest == most


def test_requests_are_taken_as_they_are_needed(kit: Any) -> None:
    """No more requests are drawn than are in flight; a caller that stops leaves the others unasked."""
    drawn = []

    def requests() -> Any:
        for number in range(100):
            drawn.append(number)
            yield number, ASK

    session = kit.connect(kit.serve(), batch_size=3)
    answers = session.generate_continuous(requests())
    next(answers)
    answers.close()
    assert len(drawn) <= 5
    assert session.generate([ASK])[0].error is None


@given(st.integers(1, 100_000), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 500)), max_size=60))
def test_rate_limit(per_minute: int, steps: list[tuple[float, int]]) -> None:
    """In any minute no more than the limit passes, but for what may pass at once."""
    now = [0.0]
    bucket = TokenBucket(per_minute, clock=lambda: now[0])
    passed: list[tuple[float, int]] = []
    for pause, units in steps:
        now[0] += pause
        passed.append((now[0] + bucket.take(units), units))
    passed.sort()
    for index, (start, _) in enumerate(passed):
        within = [units for at, units in passed[index:] if at < start + 60]
        # A request larger than what may pass at once is paid off by those behind it.
        assert sum(within[:-1]) <= per_minute + bucket.capacity + max(within) + 1


def test_requests_wait_for_the_rate_limit(kit: Any) -> None:
    """Beyond what may pass at once, requests wait; all are answered."""
    session = kit.connect(kit.serve(), requests_per_minute=600, tokens_per_minute=100_000, batch_size=8)
    assert session.generate([ASK])[0].error is None
    started = time.monotonic()
    assert all(output.error is None for output in session.generate([ASK] * 15))
    # Ten a second pass, at most ten of them at once.
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"detail": [{"loc": ["body"], "msg": "no"}]}, "no"),
        ({"detail": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ([1], "1"),
    ],
)
def test_errors_of_any_shape_are_read(content: Any, expected: str) -> None:
    """The message is found in the shapes that servers give their errors."""
    assert error_message(httpx.Response(400, json=content)) == expected


def test_a_group_that_is_refused_is_asked_one_by_one(kit: Any) -> None:
    """Pairs travel in groups; a refused group does not make its members fail."""
    double = kit.serve()
    session = kit.connect(double)
    pairs = [LoglikelihoodRequest("The sky is", f" {n}") for n in range(5)]
    expected = session.loglikelihood(pairs)
    double.faults.append(kit.faults["status"](422, "too many"))
    assert session.loglikelihood(pairs) == expected


def _model(name: str) -> Any:
    from evalkit.model import Model

    return Model(name)
