"""From logits to the scores of given tokens, with numpy."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from evalkit.scoring.spans import Scores, Top

Floats = NDArray[np.float32]

ROWS_A_THREAD = 16


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities along the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return found


def target_scores(logits: Floats, rows: NDArray[np.int64], targets: NDArray[np.int32], tops: int = 0) -> Scores:
    """Scores of targets, each at its row of `logits` [rows, vocabulary], and the `tops` best tokens there."""
    totals, best = np.empty(len(logits)), np.empty(len(logits), np.int64)

    def normalise(first: int) -> None:
        buffer = np.empty(logits.shape[1], np.float32)
        for row in range(first, min(first + ROWS_A_THREAD, len(logits))):
            best[row] = logits[row].argmax()
            peak = logits[row, best[row]]
            np.exp(np.subtract(logits[row], peak, out=buffer), out=buffer)
            totals[row] = peak + np.log(buffer.sum())

    # Threads, because numpy computes outside the interpreter's lock, and the vocabulary is long.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(normalise, range(0, len(logits), ROWS_A_THREAD)))
    top = _top(logits, totals, rows, tops) if tops else None
    return Scores(logits[rows, targets] - totals[rows], best[rows] == targets, top)


def _top(logits: Floats, totals: NDArray[np.float64], rows: NDArray[np.int64], tops: int) -> Top:
    count = min(tops, logits.shape[1])
    found = np.argpartition(logits, -count, axis=-1)[:, -count:]
    order = np.take_along_axis(logits, found, -1).argsort(-1)[:, ::-1]
    ids = np.take_along_axis(found, order, -1)
    scores = np.take_along_axis(logits, ids, -1) - totals[:, None]
    return Top(ids[rows], scores[rows])
