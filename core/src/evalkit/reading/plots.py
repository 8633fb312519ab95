"""What plots show, counted while samples pass by: calibration of choices, lengths of generated answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from evalkit.reading.samples import RIGHT, WRONG, choice_logprobs, generated_texts, probabilities
from evalkit.reading.summary import Score
from evalkit.runs.samples import Row

BINS = 10
ENOUGH_CHOICES, ENOUGH_TEXTS = 20, 5
"""With fewer samples a plot would show chance."""
MAX_PLOTS = 24
MAX_INTERVALS = 80


@dataclass(slots=True)
class Calibration:
    """How often choices of a given confidence are right, in ten bins of confidence."""

    task: str
    run: int
    counts: list[int] = field(default_factory=lambda: [0] * BINS)
    right: list[int] = field(default_factory=lambda: [0] * BINS)
    confidence: list[float] = field(default_factory=lambda: [0.0] * BINS)

    def add(self, confidence: float, is_right: bool) -> None:
        """Count one sample."""
        index = min(int(confidence * BINS), BINS - 1)
        self.counts[index] += 1
        self.right[index] += is_right
        self.confidence[index] += confidence

    @property
    def total(self) -> int:
        """Samples counted."""
        return sum(self.counts)

    @property
    def points(self) -> list[tuple[float, float, int]]:
        """(mean confidence, accuracy, samples) of every bin that holds any."""
        bins = zip(self.confidence, self.right, self.counts, strict=True)
        return [(confidence / n, right / n, n) for confidence, right, n in bins if n]

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017): |accuracy - confidence|, weighted by samples."""
        return sum(abs(accuracy - confidence) * n for confidence, accuracy, n in self.points) / max(self.total, 1)


@dataclass(slots=True)
class Lengths:
    """Characters of generated answers, right and not."""

    task: str
    run: int
    right: list[int] = field(default_factory=list)
    other: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Answers counted."""
        return len(self.right) + len(self.other)

    @property
    def median(self) -> int:
        """Half of the answers are no longer."""
        return sorted([*self.right, *self.other])[(self.total - 1) // 2] if self.total else 0

    @property
    def bars(self) -> list[tuple[int, int, int, int]]:
        """(from, to, right, others) in up to 20 bins of equal width."""
        longest = max([*self.right, *self.other], default=0)
        width = max(1, math.ceil((longest + 1) / 20))
        bins = range(longest // width + 1)
        right, other = _binned(self.right, width, len(bins)), _binned(self.other, width, len(bins))
        return [(index * width, (index + 1) * width, right[index], other[index]) for index in bins]


@dataclass(slots=True)
class Plots:
    """Both plots for every task and run."""

    calibrations: dict[tuple[str, int], Calibration] = field(default_factory=dict)
    lengths: dict[tuple[str, int], Lengths] = field(default_factory=dict)

    def add(self, task: str, run: int, row: Row, verdict: str) -> None:
        """Count one sample."""
        if verdict not in (RIGHT, WRONG):
            return
        key = (task, run)
        if logprobs := choice_logprobs(row):
            # Confidence belongs to the likeliest choice, of which "acc" tells; a first metric may judge another.
            is_right = bool(row["acc"]) if row.get("acc") in (0, 1) else verdict == RIGHT
            self.calibrations.setdefault(key, Calibration(*key)).add(max(probabilities(logprobs)), is_right)
        for text in generated_texts(row):
            found = self.lengths.setdefault(key, Lengths(*key))
            (found.right if verdict == RIGHT else found.other).append(len(text))

    def telling_calibrations(self) -> list[Calibration]:
        """Those with enough samples to say something."""
        return [plot for plot in self.calibrations.values() if plot.total >= ENOUGH_CHOICES][:MAX_PLOTS]

    def telling_lengths(self) -> list[Lengths]:
        """Those with enough answers, of more than one length."""
        plots = (plot for plot in self.lengths.values() if plot.total >= ENOUGH_TEXTS)
        return [plot for plot in plots if len({*plot.right, *plot.other}) > 1][:MAX_PLOTS]


def plotted_intervals(scores: Sequence[Score]) -> list[Score]:
    """Scores that fit on one axis from 0 to 1."""
    fitting = [s for s in scores if s.interval and 0 <= s.value <= 1 and s.interval[1] - s.interval[0] <= 1]
    return fitting[:MAX_INTERVALS]


def _binned(lengths: Sequence[int], width: int, count: int) -> list[int]:
    found = [0] * count
    for length in lengths:
        found[length // width] += 1
    return found
