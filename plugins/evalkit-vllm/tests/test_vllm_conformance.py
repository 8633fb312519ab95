"""The contract holds on a tiny model, in this process and in one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.isolation.engine import IsolatedEngine
from evalkit.model import Model
from evalkit.testing.conformance import SessionConformance
from evalkit_vllm.session import VLLMSession


class TestLlama(SessionConformance):
    """A decoder in float32."""

    @pytest.fixture
    def session(self, llama: VLLMSession) -> BaseInferenceSession:
        """The session under test."""
        return llama


class TestIsolated(SessionConformance):
    """The same in a process of its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, llama_path: Path, options: dict[str, Any]) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        with IsolatedEngine("vllm", options).build(Model(str(llama_path))) as session:
            yield session
