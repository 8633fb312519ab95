"""Attention by oneDNN's products is as exact as bfloat16 allows, and scores of a model stay what they are."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sessions import float32_session
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evalkit.requests import LoglikelihoodRequest
from evalkit_transformers import attention, tree
from evalkit_transformers.attention import attention_by_products, tail_mask


def random_attention(heads: int, tokens: int, keys: int, seen_by_all: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries with scores of up to 60, keys, values and a mask that leaves each query the first keys and itself."""
    query, key, value = (torch.randn(1, heads, count, 64).bfloat16() for count in (tokens, keys, keys))
    mask = torch.zeros(tokens, keys, dtype=torch.bfloat16)
    mask[:, seen_by_all:].masked_fill_(torch.rand(tokens, keys - seen_by_all) < 0.5, -torch.inf)
    mask[torch.arange(tokens), torch.arange(tokens) % keys] = 0
    return query * 12, key, value, mask


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 150), st.integers(1, 300), st.data())
def test_products_are_as_exact_as_flash_attention(heads: int, tokens: int, keys: int, data: st.DataObject) -> None:
    """Any numbers of heads, queries and keys, whatever is masked: off by little more than the result's own rounding."""
    torch.manual_seed(tokens)
    query, key, value, mask = random_attention(heads, tokens, keys, data.draw(st.integers(0, keys)))
    exact = scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=mask.double())
    with patch.object(attention, "PRODUCT_SCORES", data.draw(st.sampled_from([1, 1 << 16, 1 << 20]))):
        found = attention_by_products(query, key, value, tail_mask(mask), 64**-0.5)
    assert found.shape == exact.shape
    # Scores that are multiplied only once, in bfloat16, are off by 0.02 on average.
    assert (found - exact).abs().mean() < 0.004
    assert (found - exact).abs().max() < 0.06


@pytest.mark.parametrize("name", ["llama_path", "mistral_path"])
def test_scores_are_the_same_by_products(name: str, request: pytest.FixtureRequest) -> None:
    """A forest in bfloat16, with and without a sliding window: near flash attention's."""
    context = "The earth is a planet and the moon goes around it. " * 3
    pairs = [LoglikelihoodRequest(context, f" {word}{end}") for word in ("So", "It is", "We") for end in (".", " not.")]
    session = float32_session(request.getfixturevalue(name), dtype="bfloat16")
    expected = session.loglikelihood(pairs)
    usable = patch.multiple(attention, PRODUCT_QUERIES=1, PRODUCT_KEYS=1, _multiplies_bfloat16=lambda: True)
    with usable, patch.object(tree, "attention_by_products", wraps=attention_by_products) as products:
        found = session.loglikelihood(pairs)
    assert products.called
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.token_logprobs, theirs.token_logprobs, atol=0.2)
