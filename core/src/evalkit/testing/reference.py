"""What Transformers itself makes of a request, asked alone and without any cleverness: the measure of engines.

Needs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evalkit.requests import GenerationOutput, GenerationRequest, LoglikelihoodOutput, LoglikelihoodRequest

PROMPTS = (
    "The sky is",
    "A",
    "There were three apples on the table and she ate one of them, then another; the king, who had seen it all,",
    "Question: how many?\nAnswer:",
    "Two and two make",
)
LIMITS = (24, 3, 12, 1, 18)
"""New tokens of each prompt. Not the same for all: rows leave their batch at different times."""
CONTEXTS = (
    "The sky is",
    "",
    "A",
    "Question: how many apples are on the table?\nAnswer: ",
    "There were three apples on the table and she ate one of them, then another; the king, who had seen it all,",
)
CONTINUATIONS = (" blue", " a hill, and behind it the sea", "7", " Paris.\n")
PAIRS = [LoglikelihoodRequest(context, text) for context in CONTEXTS for text in CONTINUATIONS]
CLOSE: dict[str, Any] = {"rel": 1e-4, "abs": 1e-4}

Score = tuple[list[float], bool]
"""The log-probability of each token, and whether all are greedy."""


def reference_model(path: Path) -> Any:
    """The checkpoint as Transformers loads it, in float32."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(path)
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return auto.from_pretrained(path, dtype=torch.float32).eval()


def naive_score(model: Any, context: Sequence[int], continuation: Sequence[int]) -> Score:
    """One row, all logits, float32."""
    import torch

    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            fed = [model.config.decoder_start_token_id, *continuation[:-1]]
            logits = model(input_ids=torch.tensor([context]), decoder_input_ids=torch.tensor([fed])).logits[0]
        else:
            logits = model(torch.tensor([[*context, *continuation[:-1]]])).logits[0, len(context) - 1 :]
    logprobs = logits.float().log_softmax(-1)
    targets = torch.tensor(continuation)
    return logprobs.gather(1, targets[:, None])[:, 0].tolist(), bool((logprobs.argmax(-1) == targets).all())


def encoded_pair(path: Path, pair: LoglikelihoodRequest) -> tuple[list[int], list[int]]:
    """Token ids of a pair, as lm-evaluation-harness encodes it."""
    tokenizer = _tokenizer(path)
    kept = pair.context.rstrip()
    continuation = pair.context[len(kept) :] + pair.continuation
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if tokenizer.bos_token_id is None or not kept:
        # An encoder-decoder reads both apart, and no specials stand in its continuation.
        context = tokenizer(kept)["input_ids"] if kept else [prefix]
        return context, tokenizer(continuation, add_special_tokens=False)["input_ids"]
    context = tokenizer(kept)["input_ids"]
    return context, tokenizer(kept + continuation)["input_ids"][len(context) :]


@cache
def _tokenizer(path: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(path)


def check_score(output: LoglikelihoodOutput, expected: Score) -> None:
    """Compare an output, token for token."""
    logprobs, is_greedy = expected
    assert output.error is None
    assert output.token_logprobs == pytest.approx(logprobs, **CLOSE)
    assert output.logprob == pytest.approx(sum(logprobs), **CLOSE)
    assert (output.token_count, output.is_greedy) == (len(logprobs), is_greedy)


def new_tokens(model: Any, prompt: Sequence[int], ends: frozenset[int], **options: Any) -> list[tuple[int, ...]]:
    """What `model.generate` makes of one prompt alone: the new tokens of every returned sequence, up to an end."""
    import torch

    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        sequences = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **{"do_sample": False, **options}
        ).tolist()
    skip = 1 if model.config.is_encoder_decoder else len(prompt)
    return [_ended(sequence[skip:], ends) for sequence in sequences]


def _ended(tokens: list[int], ends: frozenset[int]) -> tuple[int, ...]:
    end = next((index + 1 for index, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[:end])


def greedy_requests() -> list[GenerationRequest]:
    """Prompts of mixed lengths, each with a limit of its own."""
    return [GenerationRequest(prompt=p, max_new_tokens=n) for p, n in zip(PROMPTS, LIMITS, strict=True)]


def same_answer(output: GenerationOutput, other: GenerationOutput) -> bool:
    """Whether two outputs are equal but for their times and log-probabilities."""

    def content(value: GenerationOutput) -> Any:
        kept = replace(value, timing=None, logprobs=None, alternatives=())
        return kept, [content(item) for item in value.alternatives]

    return bool(content(output) == content(other))
