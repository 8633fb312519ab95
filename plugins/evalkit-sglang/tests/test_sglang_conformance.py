"""The contract holds over the recorded API, with a prefix cache and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.testing.conformance import SessionConformance, check_close_is_idempotent
from evalkit_sglang.engine import SGLang


class TestSGLang(SessionConformance):
    """SGLang as it is by default, but for seeds."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, double_for_class: None, model_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        engine = SGLang(device="cpu", enable_deterministic_inference=True)
        with engine.build(Model(str(model_path))) as session:
            yield session


class TestWithoutPrefixCache(SessionConformance):
    """Each prompt is read anew, and few requests run at once."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, double_for_class: None, model_path: Path) -> Iterator[BaseInferenceSession]:
        """The session under test."""
        engine = SGLang(
            device="cpu", enable_deterministic_inference=True, disable_radix_cache=True, queued=3, scored_tokens=8
        )
        with engine.build(Model(str(model_path), max_length=120)) as session:
            yield session


def test_closing_twice_is_allowed(double: None, model_path: Path) -> None:
    """The second close of a session does nothing."""
    check_close_is_idempotent(SGLang(device="cpu").build(Model(str(model_path))))
