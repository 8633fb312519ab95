"""Logits are computed at scored positions only, and are those of the whole model."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small_sessions import float32_session
from torch import Tensor

from evalkit.testing.reference import (
    PAIRS,
    check_score,
    encoded_pair,
    naive_score,
    reference_model,
)
from evalkit.testing.tiny import SMALL
from evalkit_transformers.head import blockwise_scores, dense_scores
from evalkit_transformers.session import TransformersSession

CAPPED = transformers.Gemma2Config(**SMALL, head_dim=16, sliding_window=8, final_logit_softcapping=1.5)
Write = Callable[[transformers.PreTrainedConfig], Path]
Watch = Callable[[TransformersSession], AbstractContextManager[list[int]]]


def head_rows(session: TransformersSession, ask: Callable[[], object]) -> list[int]:
    """Rows of logits that the head computed in each pass while `ask` ran."""
    rows: list[int] = []
    head = session.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: rows.append(output.shape[:-1].numel()))
    try:
        ask()
    finally:
        handle.remove()
    return rows


def test_logits_are_computed_at_scored_positions_only(tiny: TransformersSession) -> None:
    """The head sees at most one row for each scored token and one for each pass, none for contexts and padding."""
    assert tiny.describe_execution()["logits"] == "scored positions"
    scored = sum(output.token_count for output in tiny.loglikelihood(PAIRS))
    rows = head_rows(tiny, lambda: tiny.loglikelihood(PAIRS))
    assert sum(rows) <= scored + len(rows)


def test_a_head_with_more_behind_it_sees_scored_positions_only(random_checkpoint: Write) -> None:
    """Where logits are capped, the head computes exactly those of scored tokens."""
    with float32_session(random_checkpoint(CAPPED), share_prefixes=False) as session:
        scored = sum(output.token_count for output in session.loglikelihood(PAIRS))
        assert sum(head_rows(session, lambda: session.loglikelihood(PAIRS))) == scored


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CAPPED, id="softcap"),
        # These logits are small: such a cap bends them by a few thousandths.
        pytest.param(
            transformers.Gemma2Config(**SMALL, head_dim=16, attn_logit_softcapping=None, final_logit_softcapping=60.0),
            id="softcap that is far away",
        ),
        pytest.param(transformers.CohereConfig(**SMALL, logit_scale=0.25), id="scale"),
        pytest.param(transformers.GraniteConfig(**SMALL, logits_scaling=8.0), id="divisor"),
    ],
)
def test_what_models_do_behind_their_head_is_kept(random_checkpoint: Write, config: Any) -> None:
    """Soft caps and scales of logits apply to selected positions too."""
    path = random_checkpoint(config)
    model = reference_model(path)
    with torch.inference_mode():
        ids = torch.tensor([[5, 9, 30]])
        bare = model.get_output_embeddings()(model.model(ids).last_hidden_state)
        assert not torch.allclose(bare, model(ids).logits, atol=1e-3), "the model does nothing behind its head"
    with float32_session(path) as session:
        assert session.describe_execution()["logits"] == "scored positions"
        for pair, output in zip(PAIRS, session.loglikelihood(PAIRS, batch_size=7), strict=True):
            check_score(output, naive_score(model, *encoded_pair(path, pair)))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=384), id="gpt2"
        ),
        pytest.param(transformers.BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=384), id="position-free"),
        pytest.param(transformers.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]), id="convolution"),
        pytest.param(
            transformers.MambaConfig(hidden_size=64, num_hidden_layers=2, state_size=8, vocab_size=384),
            id="state-space",
        ),
    ],
)
def test_other_kinds_of_models_are_exact(random_checkpoint: Write, config: Any) -> None:
    """Learned positions, no positions and recurrent layers: padding on the right changes no score."""
    path = random_checkpoint(config)
    model = reference_model(path)
    with float32_session(path) as session:
        for pair, output in zip(PAIRS, session.loglikelihood(PAIRS, batch_size=7), strict=True):
            check_score(output, naive_score(model, *encoded_pair(path, pair)))


def test_angles_that_depend_on_length_are_each_requests_own(random_checkpoint: Write) -> None:
    """With longrope, texts beyond the original context have other rotary angles: they change no shorter text's."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 24}
    config = transformers.Phi3Config(
        **SMALL,
        original_max_position_embeddings=24,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **factors},
    )
    path = random_checkpoint(config)
    model = reference_model(path)
    lengths = [sum(map(len, encoded_pair(path, pair))) - 1 for pair in PAIRS]
    assert min(lengths) < 24 < max(lengths)
    with float32_session(path) as session:
        for batch_tokens in (30, 2000):
            session.batch_tokens = batch_tokens
            for pair, output in zip(PAIRS, session.loglikelihood(PAIRS), strict=True):
                check_score(output, naive_score(model, *encoded_pair(path, pair)))


def _without_head(self: Any) -> None:
    return None


def _flat(self: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    """Calls the head with the rows and positions of hidden states as one axis."""
    output = self.model(input_ids, attention_mask=attention_mask, use_cache=False)
    hidden = output.last_hidden_state
    logits = self.lm_head(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
    return transformers.modeling_outputs.CausalLMOutputWithPast(logits=logits)


def _across(self: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    """Adds to the logits of a position those of the one before it."""
    output = self.model(input_ids, attention_mask=attention_mask, use_cache=False)
    logits = self.lm_head(output.last_hidden_state)
    shifted = torch.nn.functional.pad(logits, (0, 0, 1, 0))[:, :-1]
    return transformers.modeling_outputs.CausalLMOutputWithPast(logits=logits + shifted)


@pytest.mark.parametrize(
    ("method", "replacement"),
    [("get_output_embeddings", _without_head), ("forward", _flat), ("forward", _across)],
    ids=["no head", "flat hidden states", "positions mixed behind the head"],
)
def test_a_head_that_cannot_be_selected_is_computed_in_full(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, replacement: Any
) -> None:
    """Where selecting would give other logits, all are computed, scores are exact, and the description says so."""
    monkeypatch.setattr(transformers.LlamaForCausalLM, method, replacement)
    model = reference_model(llama_path)
    with float32_session(llama_path) as session:
        assert session.describe_execution()["logits"] == "all positions"
        for pair, output in zip(PAIRS, session.loglikelihood(PAIRS, batch_size=6), strict=True):
            check_score(output, naive_score(model, *encoded_pair(llama_path, pair)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
def test_blocks_change_no_log_probability(dtype: torch.dtype, with_bias: bool) -> None:
    """Summed over blocks of rows and of the vocabulary, or from whole logits, scores are those of log_softmax."""
    chance = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 16, generator=chance).to(dtype)
    weight = torch.randn(5000, 16, generator=chance).to(dtype)
    bias = torch.randn(5000, generator=chance).to(dtype) if with_bias else None
    # A row may have several targets.
    rows = torch.arange(900) % 600
    targets = torch.randint(5000, (900,), generator=chance)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    targets[:300] = logits[:300].argmax(-1)
    expected = logits.float().log_softmax(-1)[rows, targets]
    # One step of bfloat16 at logits of 16.
    tolerance = 1e-4 if dtype == torch.float32 else 0.13
    for logprobs, greedy, _ in (
        blockwise_scores(hidden, weight, bias, rows, targets),
        dense_scores(logits.split(256), rows, targets),
    ):
        assert logprobs.tolist() == pytest.approx(expected.tolist(), abs=tolerance)
        assert greedy[:300].all()
        assert greedy.tolist() == (logits.argmax(-1)[rows] == targets).tolist()
    for scores in (
        blockwise_scores(hidden, weight, bias, rows, targets, 1),
        dense_scores(logits.split(256), rows, targets, 3),
    ):
        assert scores.top is not None
        likely = torch.from_numpy(scores.top.ids[:, 0])
        assert logits[rows, likely].tolist() == logits.amax(-1)[rows].tolist()
        assert (scores.top.logprobs[scores.greedy, 0] == scores.logprobs[scores.greedy]).all()
        assert (scores.top.logprobs[~scores.greedy, 0] >= scores.logprobs[~scores.greedy]).all()


def test_of_equal_logits_the_first_token_is_greedy() -> None:
    """Ties are decided as argmax decides them: the lowest token, also across blocks."""
    hidden, weight = torch.ones(1, 4), torch.ones(5000, 4)
    targets = torch.tensor([0, 1, 2048, 4999])
    rows = torch.zeros_like(targets)
    for logprobs, greedy, _ in (
        blockwise_scores(hidden, weight, None, rows, targets),
        dense_scores([hidden @ weight.T], rows, targets),
    ):
        assert greedy.tolist() == [True, False, False, False]
        assert logprobs.tolist() == pytest.approx([-math.log(5000)] * 4)
