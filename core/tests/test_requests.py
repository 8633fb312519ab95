"""Requests and outputs are plain frozen values."""

from __future__ import annotations

import dataclasses

import pytest

from evalkit.requests import GenerationRequest, LoglikelihoodOutput, TokenCounts


def test_temperature_zero_is_greedy() -> None:
    """A request is sampled where its temperature is above 0, whatever else it sets."""
    assert not GenerationRequest(prompt="a", top_p=0.5, seed=1).is_sampled
    assert GenerationRequest(prompt="a", temperature=0.1).is_sampled


def test_token_counts_add_up() -> None:
    """Counts add field by field."""
    assert TokenCounts(1, 2, 3) + TokenCounts(10, 20, 30) == TokenCounts(11, 22, 33)


def test_values_cannot_be_changed() -> None:
    """An output that was journaled cannot change afterwards."""
    output = LoglikelihoodOutput(-1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        output.logprob = 0.0  # type: ignore[misc]
