"""Tokens are drawn as Transformers draws them."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.requests import (
    GenerationRequest,
)
from evalkit_transformers.sampling import limited, next_token


@settings(max_examples=150, deadline=None, database=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 300),
    scale=st.floats(0.1, 10),
    top_k=st.sampled_from([0, 1, 2, 17, 300]),
    top_p=st.floats(0.01, 1.0),
    min_p=st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0]),
)
def test_limits_are_those_of_transformers(
    seed: int, size: int, scale: float, top_k: int, top_p: float, min_p: float
) -> None:
    """top_k, top_p and min_p, alone and together, keep the tokens that Transformers' logits processors keep."""
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale
    expected = logits[None]
    if top_k:
        expected = transformers.TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = transformers.TopPLogitsWarper(top_p)(None, expected)
    if min_p:
        expected = transformers.MinPLogitsWarper(min_p)(None, expected)
    found = limited(logits, GenerationRequest(prompt="", top_k=top_k, top_p=top_p, min_p=min_p))
    assert torch.equal(found, expected[0])


def test_draws_follow_the_distribution() -> None:
    """Tokens are drawn as often as their probability at the given temperature says."""
    logits, temperature, draws = torch.tensor([0.0, 1.0, 2.0, -torch.inf]), 0.7, 4000
    request = GenerationRequest(prompt="", temperature=temperature)
    generator = torch.Generator().manual_seed(0)
    tokens = [next_token(logits, request, generator) for _ in range(draws)]
    shares = torch.bincount(torch.tensor(tokens), minlength=4) / draws
    # Three standard deviations of a share are below 0.024.
    assert shares.tolist() == pytest.approx((logits / temperature).softmax(-1).tolist(), abs=0.024)
    assert shares[3] == 0
