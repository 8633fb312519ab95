"""The contract holds for decoders, sliding windows, encoder-decoders, eager attention and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.plugins import load_engine_class
from evalkit.requests import RollingLoglikelihoodRequest
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit_transformers.engine import Transformers
from evalkit_transformers.session import TransformersSession


@pytest.fixture(scope="module")
def eager(llama_path: Path) -> Iterator[BaseInferenceSession]:
    """A session whose attention is written out."""
    engine = Transformers(dtype="float32", device="cpu", attn_implementation="eager")
    with engine.build(Model(str(llama_path))) as session:
        yield session


@pytest.fixture(scope="module")
def bfloat16(llama_path: Path) -> Iterator[BaseInferenceSession]:
    """A session in bfloat16."""
    with Transformers(dtype="bfloat16", device="cpu").build(Model(str(llama_path))) as session:
        yield session


class TestLlama(SessionConformance):
    """A decoder in float32."""

    @pytest.fixture
    def session(self, llama: TransformersSession) -> BaseInferenceSession:
        """The session under test."""
        return llama


class TestRows(SessionConformance):
    """A decoder that shares no prefixes."""

    @pytest.fixture
    def session(self, llama_rows: TransformersSession) -> BaseInferenceSession:
        """The session under test."""
        return llama_rows


class TestSlidingWindow(SessionConformance):
    """A decoder that attends to its last 16 tokens."""

    @pytest.fixture
    def session(self, mistral: TransformersSession) -> BaseInferenceSession:
        """The session under test."""
        return mistral


class TestEncoderDecoder(SessionConformance):
    """A T5, which has no chat template."""

    rolling = False
    chat = False

    @pytest.fixture
    def session(self, t5: TransformersSession) -> BaseInferenceSession:
        """The session under test."""
        return t5

    def test_rolling_fails_on_each_text_alone(self, session: BaseInferenceSession) -> None:
        """There is no rolling log-likelihood: every text gets an error, and no score."""
        outputs = session.loglikelihood_rolling([RollingLoglikelihoodRequest(text) for text in ("A hill.", "", "A")])
        assert len(outputs) == 3
        assert all(output.error and "encoder-decoder" in output.error for output in outputs)


class TestEagerAttention(SessionConformance):
    """A decoder with attention written out."""

    @pytest.fixture
    def session(self, eager: BaseInferenceSession) -> BaseInferenceSession:
        """The session under test."""
        return eager

    def test_the_chosen_attention_is_in_use(self, session: BaseInferenceSession) -> None:
        """The description names the attention that was asked for."""
        assert (session.describe_execution() or {})["attn_implementation"] == "eager"


class TestBfloat16(SessionConformance):
    """A decoder in bfloat16."""

    # A logit of 8 to 16 is stored in steps of 1/16, and a batch of another shape is summed in another order:
    # each token of a continuation may move by some steps (0.17 was the most seen).
    tolerance = 0.4

    @pytest.fixture
    def session(self, bfloat16: BaseInferenceSession) -> BaseInferenceSession:
        """The session under test."""
        return bfloat16


@pytest.mark.parametrize("path", ["llama_path", "t5_path"])
def test_closing_twice_is_allowed(path: str, request: pytest.FixtureRequest) -> None:
    """The second close of a session does nothing."""
    folder = request.getfixturevalue(path)
    check_close_is_idempotent(Transformers(device="cpu").build(Model(str(folder))))


def test_compat_is_the_engine_without_sharing(llama_path: Path) -> None:
    """`transformers-compat` is registered, scores padded rows, and says so."""
    cls, spec = load_engine_class("transformers-compat")
    assert spec.load.endswith(":TransformersCompat")
    with cls(dtype="float32", device="cpu").build(Model(str(llama_path))) as session:
        assert session.describe_execution()["scoring"] == "padded rows"
