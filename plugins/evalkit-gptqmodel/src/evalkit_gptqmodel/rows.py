"""Each text on its own, through the model's own attention and caches: for what no packed row can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import ModelError
from evalkit.scoring import ScoredTokens, Span
from evalkit_gptqmodel.memory import computing
from evalkit_gptqmodel.scores import target_scores

if TYPE_CHECKING:
    from evalkit_gptqmodel.session import GPTQModelSession

CACHES = ("past_key_values", "cache_params")
"""What models call their cache; pure state-space models use the second name."""


def score_rows(session: GPTQModelSession, spans: list[Span]) -> list[ScoredTokens]:
    """Score spans in one pass, a padded row each. Raises OutOfMemoryError."""
    longest = max(len(span.fed) for span in spans)
    ids = torch.zeros((len(spans), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, span in enumerate(spans):
        ids[row, : len(span.fed)] = torch.tensor(span.fed)
        mask[row, : len(span.fed)] = 1
    session.count_computed(ids.numel())
    found = []
    with computing(session.device):
        logits = session.forward(
            input_ids=ids.to(session.device), attention_mask=mask.to(session.device), use_cache=False
        )
        for row, span in enumerate(spans):
            own = logits[row, span.start - 1 : len(span.ids) - 1]
            targets = np.array(span.targets, np.int32)
            scores = target_scores(own, np.arange(len(targets)), targets, span.tops)
            found.append(scores.part(0, len(targets)))
    return found


class RowDecoder:
    """Sequences with a cache each; the passes that `evalkit.decoding` asks for, one sequence after another."""

    def __init__(self, session: GPTQModelSession) -> None:
        self.session = session
        self.prefix: tuple[int, ...] = ()
        self.caches: list[dict[str, Any]] = []
        self.lengths: list[int] = []

    def begin(self, prefix: tuple[int, ...]) -> None:
        """Drop all sequences; each will read the prefix itself."""
        self.prefix, self.caches, self.lengths = prefix, [], []

    def admit(self, suffixes: list[tuple[int, ...]]) -> NDArray[np.float32]:
        """Read new sequences; logits [sequences, vocabulary] behind each."""
        logits = []
        for suffix in suffixes:
            self.caches.append({})
            self.lengths.append(0)
            logits.append(self._read(len(self.caches) - 1, [*self.prefix, *suffix]))
        return np.stack(logits)

    def step(self, fed: list[list[int]]) -> list[NDArray[np.float32]]:
        """Read a further token of every sequence; for each, logits [1, vocabulary]."""
        return [self._read(slot, tokens)[None] for slot, tokens in enumerate(fed)]

    def keep(self, slot: int, tokens: int) -> None:
        """All that is fed is kept: there are no guesses."""

    def drop(self, slot: int) -> None:
        """Free a slot; the last one moves into its place."""
        for side in (self.caches, self.lengths):
            _fill(side, slot)

    def _read(self, slot: int, tokens: list[int]) -> NDArray[np.float32]:
        """Read tokens of a sequence; logits [vocabulary] behind the last."""
        session, first = self.session, self.lengths[slot]
        session.count_computed(len(tokens))
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([tokens], device=session.device),
            "position_ids": torch.arange(first, first + len(tokens), device=session.device)[None],
            "attention_mask": torch.ones((1, first + len(tokens)), dtype=torch.long, device=session.device),
            "logits_to_keep": 1,
        }
        known = {
            name: value for name, value in inputs.items() if name in session.accepts or "kwargs" in session.accepts
        }
        with computing(session.device):
            output = session.model(**known, **self.caches[slot], use_cache=True)
            self.caches[slot] = {name: output[name] for name in CACHES if output.get(name) is not None}
            if not self.caches[slot]:
                name = type(session.model).__name__
                raise ModelError(f"evalkit cannot generate with {name}: it keeps its state in a way of its own")
            self.lengths[slot] += len(tokens)
            logits: NDArray[np.float32] = output.logits[0, -1].float().cpu().numpy()
        return logits


def _fill(side: list[Any], slot: int) -> None:
    """Put the last item of a list into a place."""
    last = side.pop()
    if slot < len(side):
        side[slot] = last
