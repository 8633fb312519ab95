"""Logits only where they are needed: select hidden states just before the output head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

CHUNK = 256


class SelectiveHead:
    """Makes a model compute logits at chosen (row, position) pairs only.

    A hook on the output head's input keeps the chosen hidden states, so all that the model does behind its
    head (soft caps, scaling) still happens. Where a model's head does not allow that, `works` is False and
    the choice is made from full logits.
    """

    def __init__(self, model: Any) -> None:
        self._chosen: tuple[Tensor, Tensor] | None = None
        self.works = False
        head = model.get_output_embeddings()
        if head is not None:
            head.register_forward_pre_hook(self._select)

    def probe(self, forward: Any) -> None:
        """Find out whether selecting works: `forward(ids)` gives logits [1, length, vocabulary]."""
        ids = torch.tensor([[0, 1, 0]])
        full = forward(ids)
        rows, positions = torch.tensor([0, 0]), torch.tensor([0, 2])
        try:
            with self.selecting(rows, positions):
                chosen = forward(ids)
        except (RuntimeError, IndexError, ValueError):
            return
        same_shape = tuple(chosen.shape[:2]) == (1, 2)
        self.works = same_shape and torch.allclose(chosen[0].float(), full[0, [0, 2]].float(), rtol=1e-2, atol=1e-2)

    @contextmanager
    def selecting(self, rows: Tensor, positions: Tensor) -> Iterator[None]:
        """Within it, logits have the shape [1, len(rows), vocabulary]."""
        self._chosen = (rows, positions)
        try:
            yield
        finally:
            self._chosen = None

    def _select(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._chosen is None:
            return None
        rows, positions = self._chosen
        hidden = args[0]
        kept = hidden[rows.to(hidden.device), positions.to(hidden.device)]
        return (kept.unsqueeze(0), *args[1:])


def token_logprobs(logits: Tensor, targets: Tensor) -> tuple[list[float], list[bool]]:
    """Log-probability of each target and whether it is the most likely token.

    `logits` is [positions, vocabulary] in any dtype, `targets` [positions]. Summed in float32, a block of
    positions at a time, so that no float32 copy of all logits is made.
    """
    logprobs: list[float] = []
    greedy: list[bool] = []
    for block, wanted in zip(logits.split(CHUNK), targets.split(CHUNK), strict=True):
        scores = block.float()
        chosen = scores.gather(1, wanted[:, None])[:, 0]
        logprobs += (chosen - scores.logsumexp(dim=-1)).tolist()
        greedy += (scores.argmax(dim=-1) == wanted).tolist()
    return logprobs, greedy
