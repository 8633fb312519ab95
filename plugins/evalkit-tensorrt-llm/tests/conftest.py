"""A stand-in for TensorRT LLM, and sessions on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.model import Model
from evalkit.testing.doubles import stand_in
from evalkit.testing.tiny import tiny_llama
from evalkit_tensorrt_llm.engine import TensorRTLLM
from evalkit_tensorrt_llm.session import TensorRTLLMSession

DOUBLE = Path(__file__).parent / "double"
OpenSession = Callable[..., TensorRTLLMSession]


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, for its tokenizer."""
    pytest.importorskip("transformers", reason="reads the tokenizer")
    return tiny_llama(tmp_path_factory.mktemp("llama")).hf


@pytest.fixture
def double() -> Iterator[None]:
    """The stand-in under TensorRT LLM's name."""
    yield from _double()


@pytest.fixture(scope="class")
def double_for_class() -> Iterator[None]:
    """The same for all tests of a class."""
    yield from _double()


def _double() -> Iterator[None]:
    with stand_in("tensorrt_llm", DOUBLE), pytest.MonkeyPatch.context() as patch:
        # The stand-in computes on no device.
        patch.setattr("evalkit_tensorrt_llm.device.has_gpu", lambda: True)
        yield


@pytest.fixture
def open_session(double: None, model_path: Path) -> OpenSession:
    """Opens sessions on the stand-in, with options of the engine and the model."""

    def opened(model: dict[str, Any] | None = None, **options: Any) -> TensorRTLLMSession:
        session = TensorRTLLM(**options).build(Model(str(model_path), **(model or {})))
        assert isinstance(session, TensorRTLLMSession)
        return session

    return opened


@pytest.fixture
def session(open_session: OpenSession) -> Iterator[TensorRTLLMSession]:
    """A session with TensorRT LLM's defaults."""
    with open_session() as found:
        yield found
