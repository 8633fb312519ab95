"""The contract holds on a tiny model, with the prefix cache and without."""

from __future__ import annotations

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.testing.conformance import SessionConformance
from evalkit_vllm.session import VLLMSession


class TestLlama(SessionConformance):
    """A decoder in float32."""

    @pytest.fixture
    def session(self, llama: VLLMSession) -> BaseInferenceSession:
        """The session under test."""
        return llama
