"""The forward passes of generation: a prefill, then one token a row, for both kinds of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from evalkit.errors import ModelError

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession


CACHES = ("past_key_values", "cache_params")
"""What models call their cache; pure state-space models use the second name."""


class Steps(ABC):
    """A batch of sequences that grow by one token a step."""

    def __init__(self, session: TransformersSession, prompts: list[tuple[int, ...]]) -> None:
        self.session = session
        self.prompts = prompts
        self.cache: dict[str, Any] = {}

    @abstractmethod
    def prefill(self) -> Tensor:
        """Read the prompts; logits [rows, vocabulary] of the first new token."""

    @abstractmethod
    def step(self, tokens: list[int]) -> Tensor:
        """Read one token a row; logits [rows, vocabulary] of the next."""

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.session.device)
        for cache in self.cache.values():
            # Not batch_select_indices: recurrent layers lack it, or forget their states in it.
            cache.reorder_cache(index)
        self.select(index)

    @abstractmethod
    def select(self, index: Tensor) -> None:
        """Drop all other rows of what stands beside the cache."""

    def last_logits(self, inputs: dict[str, Any], rows: int, last: int) -> Tensor:
        """One pass, its cache kept; logits at position `last` of every row."""
        session = self.session
        positions = torch.full((rows,), last)
        session.count_computed(rows * (last + 1))
        if session.head.works:
            with session.head.selecting(torch.arange(rows), positions):
                output = session.forward(**inputs, **self.cache, use_cache=True)
            logits: Tensor = output.logits[0]
        else:
            output = session.forward(**inputs, **self.cache, use_cache=True)
            logits = output.logits[:, -1]
        self.cache = {name: output[name] for name in CACHES if output.get(name) is not None}
        # A subclass may hold states of its own, which reorder_cache would leave as they are.
        if not self.cache or any(
            type(cache) not in (DynamicCache, EncoderDecoderCache) for cache in self.cache.values()
        ):
            name = type(session.model).__name__
            raise ModelError(f"evalkit cannot generate with {name}: it keeps its state in a way of its own")
        return logits


class CausalSteps(Steps):
    """A decoder-only model: prompts are padded on the left, so that all rows end together."""

    def prefill(self) -> Tensor:
        """Read the prompts."""
        ids, self.mask = self.session.pad(self.prompts, left=True)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": self.mask, "position_ids": self.positions}
        return self.last_logits(inputs, len(self.prompts), ids.shape[1] - 1)

    def step(self, tokens: list[int]) -> Tensor:
        """Read one token a row."""
        ids = torch.tensor(tokens, device=self.session.device)[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        self.positions = self.positions[:, -1:] + 1
        # A state-space model's mask is for the tokens that it reads now: its state has met the padding.
        mask = None if "cache_params" in self.cache else self.mask
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": self.positions}
        return self.last_logits(inputs, len(tokens), 0)

    def select(self, index: Tensor) -> None:
        """Drop all other rows."""
        self.mask, self.positions = self.mask[index], self.positions[index]


class EncoderDecoderSteps(Steps):
    """An encoder-decoder model: prompts are read once by the encoder."""

    def prefill(self) -> Tensor:
        """Encode the prompts and read the decoder's start token."""
        ids, self.mask = self.session.pad(self.prompts, left=False)
        self.session.count_computed(ids.numel())
        encoder = self.session.model.get_encoder()
        self.encoded = encoder(input_ids=ids, attention_mask=self.mask).last_hidden_state
        assert self.session.decoder_start is not None
        return self.step([self.session.decoder_start] * len(self.prompts))

    def step(self, tokens: list[int]) -> Tensor:
        """Read one token a row."""
        inputs = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=self.encoded),
            "attention_mask": self.mask,
            "decoder_input_ids": torch.tensor(tokens, device=self.session.device)[:, None],
        }
        return self.last_logits(inputs, len(tokens), 0)

    def select(self, index: Tensor) -> None:
        """Drop all other rows."""
        self.mask, self.encoded = self.mask[index], self.encoded[index]


def make_steps(session: TransformersSession, prompts: list[tuple[int, ...]]) -> Steps:
    """The steps that fit the session's kind of model."""
    return (EncoderDecoderSteps if session.is_encoder_decoder else CausalSteps)(session, prompts)
