"""A stand-in for SGLang, and sessions on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.model import Model
from evalkit.testing.doubles import stand_in
from evalkit.testing.tiny import tiny_llama
from evalkit_sglang.engine import SGLang
from evalkit_sglang.session import SGLangSession

DOUBLE = Path(__file__).parent / "double"
OpenSession = Callable[..., SGLangSession]


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, for its tokenizer."""
    pytest.importorskip("transformers", reason="reads the tokenizer")
    return tiny_llama(tmp_path_factory.mktemp("llama")).hf


@pytest.fixture
def double() -> Iterator[None]:
    """The stand-in under SGLang's name."""
    with stand_in("sglang", DOUBLE):
        yield


@pytest.fixture(scope="class")
def double_for_class() -> Iterator[None]:
    """The same for all tests of a class."""
    with stand_in("sglang", DOUBLE):
        yield


@pytest.fixture
def open_session(double: None, model_path: Path) -> OpenSession:
    """Opens sessions on the stand-in, with options of the engine and the model."""

    def opened(model: dict[str, Any] | None = None, **options: Any) -> SGLangSession:
        session = SGLang(**{"device": "cpu", **options}).build(Model(str(model_path), **(model or {})))
        assert isinstance(session, SGLangSession)
        return session

    return opened


@pytest.fixture
def session(open_session: OpenSession) -> Iterator[SGLangSession]:
    """A session with SGLang's defaults."""
    with open_session() as found:
        yield found
