"""The forward passes of generation: a prefill, then one token a row, for both kinds of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession


class Steps(ABC):
    """A batch of sequences that grow by one token a step."""

    def __init__(self, session: TransformersSession, prompts: list[tuple[int, ...]]) -> None:
        self.session = session
        self.prompts = prompts
        self.cache: Any = None

    @abstractmethod
    def prefill(self) -> Tensor:
        """Read the prompts; logits [rows, vocabulary] of the first new token."""

    @abstractmethod
    def step(self, tokens: list[int]) -> Tensor:
        """Read one token a row; logits [rows, vocabulary] of the next."""

    @abstractmethod
    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""

    def last_logits(self, inputs: dict[str, Any], rows: int, last: int) -> Tensor:
        """One pass, its cache kept; logits at position `last` of every row."""
        session = self.session
        positions = torch.full((rows,), last)
        session.count_computed(rows * (last + 1))
        if session.head.works:
            with session.head.selecting(torch.arange(rows), positions):
                output = session.forward(**inputs, past_key_values=self.cache, use_cache=True)
            logits: Tensor = output.logits[0]
        else:
            output = session.forward(**inputs, past_key_values=self.cache, use_cache=True)
            logits = output.logits[:, -1]
        self.cache = output.past_key_values
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
        inputs = {"input_ids": ids, "attention_mask": self.mask, "position_ids": self.positions}
        return self.last_logits(inputs, len(tokens), 0)

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.session.device)
        self.cache.batch_select_indices(index)
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

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.session.device)
        self.cache.batch_select_indices(index)
        self.mask, self.encoded = self.mask[index], self.encoded[index]


def make_steps(session: TransformersSession, prompts: list[tuple[int, ...]]) -> Steps:
    """The steps that fit the session's kind of model."""
    return (EncoderDecoderSteps if session.is_encoder_decoder else CausalSteps)(session, prompts)
