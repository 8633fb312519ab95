"""Logits only where they are needed: take hidden states just before the output head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from evalkit.scoring.spans import Scores, Top
from evalkit_transformers.memory import padding
from evalkit_transformers.packed import PackedLinear

ROWS = 256
BLOCK = 1 << 19
"""Logits computed at once: 2 MiB of float32 stay in the processor's cache."""
LEAST_WIDTH = 256

Forward = Callable[[], Tensor]
"""Runs the model; its logits."""


class _HeadReachedError(Exception):
    """Ends a pass before the output head, whose full pass nobody needs."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("the output head was reached")
        self.hidden = hidden


class SelectiveHead:
    """Makes a model compute logits at chosen (row, position) pairs only.

    A hook on the output head's input sees the hidden states. Where the head is one plain matrix (`linear`), they
    are all that is taken from the model, and normalisation goes block by block, so that logits are never stored.
    Otherwise the chosen hidden states go on through the head, so that all that the model does behind it (soft
    caps, scaling) still happens. Where neither works, full logits are cut.
    """

    def __init__(self, model: Any) -> None:
        self._chosen: tuple[Tensor, Tensor] | None = None
        self._take = False
        self._gain = 1.0
        self.works = False
        self.linear = False
        self.may_pack = False
        """Whether packed weights work here."""
        self.head = model.get_output_embeddings()
        if self.head is not None:
            self.head.register_forward_pre_hook(self._hook)

    def probe(self, forward: Callable[[Tensor], Tensor]) -> None:
        """Find out what works: `forward(ids)` gives logits [1, length, vocabulary]."""
        ids = torch.tensor([[0, 1, 0]])
        full = forward(ids)[0, [0, 2]]
        rows, positions = torch.tensor([0, 0]), torch.tensor([0, 2])
        try:
            with self.selecting(rows, positions):
                chosen = forward(ids)
        except (RuntimeError, IndexError, ValueError):
            return
        self.works = tuple(chosen.shape[:2]) == (1, 2) and _close(chosen[0], full)
        # Quantized heads are subclasses of Linear with other weights; accelerate's hook brings them from elsewhere.
        if self.works and type(self.head) is torch.nn.Linear and not hasattr(self.head, "_hf_hook"):
            self.linear = self._nothing_follows(lambda: forward(ids))

    def _nothing_follows(self, forward: Forward) -> bool:
        """Whether the model's logits are the head's output as it is."""
        # Enlarged, because a soft cap bends small logits so little that it would pass unnoticed.
        self._gain = 16.0
        try:
            hidden = self.hidden_states(forward, torch.tensor([0, 0]), torch.tensor([0, 2]))
            full = forward()[0, [0, 2]]
        finally:
            self._gain = 1.0
        return _close(self.head(hidden), full)

    def score(
        self, forward: Forward, at: tuple[Tensor, Tensor], target_rows: Tensor, targets: Tensor, *, tops: int = 0
    ) -> Scores:
        """Log-probability of each target, whether it is the most likely token, and the `tops` most likely ones.

        `at` names (row, position) of the logits needed; target k is scored by logits number `target_rows[k]`.
        """
        if self.linear:
            hidden = self.hidden_states(forward, *at)
            if hidden.dtype == torch.float32 or tops > 1:
                return dense_scores(map(self.head, hidden.split(ROWS)), target_rows, targets, tops)
            return blockwise_scores(hidden, self.head.weight, self.head.bias, target_rows, targets, tops)
        return dense_scores(self.logits(forward, *at).split(ROWS), target_rows, targets, tops)

    def logits(self, forward: Forward, rows: Tensor, positions: Tensor) -> Tensor:
        """Logits [len(rows), vocabulary]."""
        if self.linear:
            logits: Tensor = self._few_rows(self.hidden_states(forward, rows, positions))
            return logits
        if self.works:
            with self.selecting(rows, positions):
                return forward()[0]
        full = forward()
        return full[rows.to(full.device), positions.to(full.device)]

    @cached_property
    def _few_rows(self) -> Any:
        """The head for the few rows of generation; packed it costs a copy of its matrix, and half the time."""
        return PackedLinear(self.head) if self.may_pack else self.head

    def hidden_states(self, forward: Forward, rows: Tensor, positions: Tensor) -> Tensor:
        """What the head would read at the chosen places, [len(rows), size]."""
        self._take = True
        try:
            forward()
        except _HeadReachedError as reached:
            hidden = reached.hidden
        finally:
            self._take = False
        return hidden[rows.to(hidden.device), positions.to(hidden.device)]

    @contextmanager
    def selecting(self, rows: Tensor, positions: Tensor) -> Iterator[None]:
        """Within it, logits have the shape [1, len(rows), vocabulary]."""
        self._chosen = (rows, positions)
        try:
            yield
        finally:
            self._chosen = None

    def _hook(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden = args[0]
        if self._gain != 1.0:
            hidden = hidden * self._gain
        if self._take:
            raise _HeadReachedError(hidden)
        if self._chosen is None:
            return None if self._gain == 1.0 else (hidden, *args[1:])
        rows, positions = self._chosen
        kept = hidden[rows.to(hidden.device), positions.to(hidden.device)]
        return (kept.unsqueeze(0), *args[1:])


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool(torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2))


def dense_scores(blocks: Iterable[Tensor], target_rows: Tensor, targets: Tensor, tops: int = 0) -> Scores:
    """Scores from blocks of logits [rows, vocabulary], one after another, each normalised in float32.

    By log_softmax, because lm-evaluation-harness does: in float32 its sum over the vocabulary is off by up to
    1e-5 a token, always to the same side, and a long text's score shows that.
    """
    order = target_rows.argsort(stable=True)
    sorted_rows, sorted_targets = target_rows[order], targets[order]
    logprobs = torch.empty(len(targets), device=targets.device)
    greedy = torch.empty(len(targets), dtype=torch.bool, device=targets.device)
    best = torch.empty((len(targets), tops), device=targets.device)
    best_ids = torch.empty((len(targets), tops), dtype=torch.long, device=targets.device)
    first = 0
    for block in blocks:
        start, stop = torch.searchsorted(sorted_rows, sorted_rows.new_tensor([first, first + len(block)])).tolist()
        rows, wanted = sorted_rows[start:stop] - first, sorted_targets[start:stop]
        scores = block.float().log_softmax(-1)
        logprobs[order[start:stop]] = scores[rows, wanted]
        greedy[order[start:stop]] = scores.argmax(-1)[rows] == wanted
        if tops:
            values, ids = scores.topk(tops, dim=-1)
            best[order[start:stop]], best_ids[order[start:stop]] = values[rows], ids[rows]
        first += len(block)
    top = Top(best_ids.cpu().numpy(), best.double().cpu().numpy()) if tops else None
    return Scores(logprobs.double().cpu().numpy(), greedy.cpu().numpy(), top)


def blockwise_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target_rows: Tensor, targets: Tensor, tops: int = 0
) -> Scores:
    """Scores from hidden states [rows, size] and the head's matrix, a block of the vocabulary at a time.

    Keeps for each row a running maximum and a running sum of exponentials (Milakov & Gimelshein 2018,
    arXiv:1805.02867). Of equal maxima the first token counts as the most likely, as argmax has it. The most likely one
    itself (`tops` 1) comes for nothing, further ones do not.
    """
    order = targets.argsort()
    sorted_rows, sorted_targets = target_rows[order], targets[order]
    hidden = pad(hidden, (0, 0, 0, padding(len(hidden), hidden.device)))
    peak = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    total, best = torch.zeros_like(peak), torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    chosen = torch.empty(len(targets), device=hidden.device)
    width = max(LEAST_WIDTH, BLOCK // max(1, len(hidden)))
    starts = torch.arange(0, len(weight) + width, width, device=hidden.device)
    bounds = torch.searchsorted(sorted_targets, starts).tolist()
    for number, start in enumerate(range(0, len(weight), width)):
        part, mine = slice(start, start + width), slice(bounds[number], bounds[number + 1])
        scores = linear(hidden, weight[part], None if bias is None else bias[part]).float()
        chosen[mine] = scores[sorted_rows[mine], sorted_targets[mine] - start]
        highest, place = scores.max(dim=-1)
        best = torch.where(highest > peak, place + start, best)
        raised = torch.maximum(peak, highest)
        total = total * (peak - raised).exp_() + scores.sub_(raised[:, None]).exp_().sum(-1)
        peak = raised
    logprobs = torch.empty_like(chosen)
    totals = peak + total.log()
    logprobs[order] = chosen - totals[sorted_rows]
    found = Scores(logprobs.double().cpu().numpy(), (best[target_rows] == targets).cpu().numpy())
    if not tops:
        return found
    likeliest = (peak - totals)[target_rows, None].double().cpu().numpy()
    return found._replace(top=Top(best[target_rows, None].cpu().numpy(), likeliest))
