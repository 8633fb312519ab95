"""From logits to the scores of given tokens, on the device that the logits are on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.scoring import Scores
from evalkit.scoring.spans import Top

ROWS = 256
"""Rows that are in memory in float32 at once."""


def target_scores(logits: Tensor, rows: NDArray[np.int64], targets: NDArray[np.int32], tops: int = 0) -> Scores:
    """Scores of targets, each at its row of `logits` [rows, vocabulary], and the `tops` best tokens there.

    By log_softmax, as lm-evaluation-harness does: its rounding is in its scores.
    """
    order = np.argsort(rows, kind="stable")
    bounds = np.searchsorted(rows[order], np.arange(0, len(logits) + ROWS, ROWS))
    logprobs, greedy = np.empty(len(targets)), np.empty(len(targets), bool)
    tops = min(tops, logits.shape[1])
    best, best_ids = np.empty((len(targets), tops)), np.empty((len(targets), tops), np.int64)
    for number, first in enumerate(range(0, len(logits), ROWS)):
        chosen = order[bounds[number] : bounds[number + 1]]
        at = torch.from_numpy(rows[chosen].astype(np.int64) - first).to(logits.device)
        wanted = torch.from_numpy(targets[chosen].astype(np.int64)).to(logits.device)
        scores = logits[first : first + ROWS].float().log_softmax(-1)
        logprobs[chosen] = scores[at, wanted].double().cpu().numpy()
        greedy[chosen] = (scores.argmax(-1)[at] == wanted).cpu().numpy()
        if tops:
            values, ids = scores.topk(tops, dim=-1)
            best[chosen], best_ids[chosen] = values[at].double().cpu().numpy(), ids[at].cpu().numpy()
    return Scores(logprobs, greedy, Top(best_ids, best) if tops else None)
