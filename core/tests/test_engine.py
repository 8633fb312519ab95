"""The contract's own helpers: secrets stay out of what is written, and the smallest session already streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.engine import BaseEngine, BaseInferenceSession, batched, redact
from evalkit.errors import RequestError
from evalkit.model import Model
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)
from evalkit.testing.fake import Fake, FakeSession

if TYPE_CHECKING:
    from conftest import Toy


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "name", ["api_key", "API-KEY", "token", "hf_token", "client_secret", "password", "Authorization", "key"]
)
def test_secrets_are_redacted(name: str) -> None:
    """A text under a name with a secret word is replaced, however it is spelt and wherever it is."""
    assert redact({name: "abc"}) == {name: "***"}
    assert redact({"headers": [{name: "abc"}]}) == {"headers": [{name: "***"}]}
    assert redact({name: ["abc", "def"]}) == {name: ["***", "***"]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 512),
        ("tokenizer", "gpt2"),
        ("monkey", "abc"),
        ("keyboard", "us"),
        ("token", None),
        ("api_key", ""),
        ("api_key_env", "MY_KEY"),
        ("eos_token", 5),
    ],
)
def test_what_is_no_secret_is_kept(name: str, value: Any) -> None:
    """Only whole words count; numbers, empty texts and None hide nothing."""
    assert redact({name: value}) == {name: value}


@pytest.mark.parametrize(
    "value",
    [
        "sk-proj-0123456789abcdef",
        "hf_0123456789abcdefABCDEF",
        "ghp_0123456789abcdefABCDEF",
        "Bearer 0123456789abcdefABCDEF",
        "https://me:sesame@host/v1",
    ],
)
def test_what_looks_like_a_secret_is_redacted(value: str) -> None:
    """Keys of well-known services and passwords in addresses, whatever the option is called."""
    assert redact({"revision": value, "other": [value]}) == {"revision": "***", "other": ["***"]}


@pytest.mark.parametrize("value", ["hf_model", "org/sk-model", "https://host:80/v1", "Basic understanding of words"])
def test_what_only_begins_like_a_secret_is_kept(value: str) -> None:
    """Names of models, addresses and prose are no secrets."""
    assert redact({"path": value}) == {"path": value}


def test_secrets_of_the_environment_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of a variable that names a secret is one in an option, too; a short word within a text is none."""
    monkeypatch.setenv("HOUSE_API_KEY", "open-sesame-open-sesame")
    monkeypatch.setenv("DOOR_PASSWORD", "password")
    monkeypatch.setenv("HOUSE_NAME", "the-name-of-the-house")
    given = {"a": "x-open-sesame-open-sesame", "b": "password", "c": "a password, say", "d": "the-name-of-the-house"}
    assert redact(given) == {**given, "a": "***", "b": "***"}


def test_redacting_leaves_the_original_alone() -> None:
    """The engine itself keeps its key."""
    options = {"nested": {"api_key": "abc"}}
    assert redact(options) == {"nested": {"api_key": "***"}}
    assert options == {"nested": {"api_key": "abc"}}


@dataclass(slots=True)
class Remote(Fake):
    """An engine with a secret."""

    api_key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def test_an_engine_describes_itself_without_its_secrets() -> None:
    """The description has the class and all options, secrets redacted."""
    described = Remote(api_key="abc", headers={"Authorization": "Bearer abc", "Accept": "x"}).to_dict()
    assert described["class"] == "Remote"
    assert described["max_length"] == 2048
    assert "abc" not in str(described)
    assert described["headers"]["Accept"] == "x"


# ── an engine with a model ──────────────────────────────────────────────────────────────────────────────────
def test_an_engine_runs_a_model_in_one_line(toy: Toy) -> None:
    """`engine.model(path).run(task)` gives what `evaluate` gives."""
    bound = Fake().model("fake", max_length=500)
    result = bound.run("toy_target", data_dir=str(toy.data_dir), limit=2)
    assert result.results == toy.run("toy_target", limit=2).results


def test_a_bound_model_gives_its_session(toy: Toy) -> None:
    """`engine.model(path).session()` is the loaded model, the model's own options applied."""
    with Fake(max_length=100).model("fake", max_length=50).session() as session:
        assert session.describe_execution() == {"backend": "fake", "max_length": 50}
        assert session.loglikelihood([LoglikelihoodRequest("a", "b")])[0].logprob < 0
    assert isinstance(session, FakeSession)
    assert session.closed


# ── what a session has for nothing ──────────────────────────────────────────────────────────────────────────
class Least(BaseInferenceSession):
    """Only what the contract demands; scores are lengths."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate(self, requests: list[GenerationRequest], *, batch_size: int | None = None) -> list[GenerationOutput]:
        return [GenerationOutput(request.prompt or "") for request in requests]

    def generate_continuous(
        self, requests: Iterable[tuple[Any, GenerationRequest]], *, batch_size: int | None = None
    ) -> Iterator[tuple[Any, GenerationOutput]]:
        return ((key, GenerationOutput(request.prompt or "")) for key, request in requests)

    def loglikelihood(
        self, requests: list[LoglikelihoodRequest], *, batch_size: int | None = None
    ) -> list[LoglikelihoodOutput]:
        self.batches.append(len(requests))
        return [LoglikelihoodOutput(-float(len(request.continuation))) for request in requests]

    def loglikelihood_rolling(
        self, requests: list[RollingLoglikelihoodRequest], *, batch_size: int | None = None
    ) -> list[RollingLoglikelihoodOutput]:
        self.batches.append(len(requests))
        return [RollingLoglikelihoodOutput(-float(len(request.text))) for request in requests]

    def gc(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(("batch_size", "batches"), [(None, [16, 4]), (8, [8, 8, 4])])
def test_the_smallest_session_streams_in_batches(batch_size: int | None, batches: list[int]) -> None:
    """Scores stream batch by batch, each under its own key, though the engine only answers lists."""
    session = Least()
    pairs = [(f"key {n}", LoglikelihoodRequest("", "x" * n)) for n in range(20)]
    found = session.loglikelihood_continuous(iter(pairs), batch_size=batch_size)
    assert [(key, output.logprob) for key, output in found] == [(f"key {n}", -n) for n in range(20)]
    texts = [(n, RollingLoglikelihoodRequest("x" * n)) for n in range(20)]
    rolled = session.loglikelihood_rolling_continuous(iter(texts), batch_size=batch_size)
    assert [(key, output.logprob) for key, output in rolled] == [(n, -n) for n in range(20)]
    assert session.batches == batches * 2


def test_a_stream_asks_no_further_than_it_is_read() -> None:
    """The first answers come before later requests are even made: a run can be stopped at any time."""
    session = Least()
    endless = ((n, LoglikelihoodRequest("", "x")) for n in iter(int, 1))
    stream = session.loglikelihood_continuous(endless, batch_size=2)
    assert [next(stream)[1].logprob for _ in range(3)] == [-1, -1, -1]
    assert session.batches == [2, 2]


def test_the_smallest_session_promises_nothing_more() -> None:
    """No chat template, no counts, no limit: said plainly, never guessed."""
    session = Least()
    with pytest.raises(RequestError, match=r"Least has no chat template. Leave out --apply-chat-template"):
        session.apply_chat_template([])
    assert session.describe_execution() is None
    assert session.token_counts() is None
    assert session.too_long([LoglikelihoodRequest("a" * 10**6, "b")]) == []


def test_leaving_the_block_closes_the_session() -> None:
    """An exception on the way out closes it too."""
    session = Fake().build(Model("any"))
    with pytest.raises(KeyError), session:
        raise KeyError
    assert session.closed


def test_batched_gives_consecutive_lists() -> None:
    """All items once, in order; the last list may be shorter."""
    assert list(batched(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []


def test_an_engine_must_build() -> None:
    """The one thing an engine has to do cannot be left out."""
    with pytest.raises(TypeError, match=r"abstract"):
        BaseEngine()  # type: ignore[abstract]
