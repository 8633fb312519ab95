"""Row: one line of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EXAMPLES = 5
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A metric of a task or a group in the baseline and in another run.

    The values are those over the `documents` that both runs scored. `interval`, `p_value`, `corrected` (Holm, over the
    rows of its family) and `detectable` are None where a metric cannot be taken apart by documents. `parts` are the
    rows of a group's tasks. `detail` says that the row only shows where a group's difference comes from.
    """

    run: str
    task: str
    metric: str
    filter: str
    higher_is_better: bool
    documents: int
    baseline: float
    value: float
    difference: float
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    corrected: float | None = None
    test: str | None = None
    detectable: float | None = None
    worse: tuple[int, ...] = ()
    better: tuple[int, ...] = ()
    parts: tuple[Row, ...] = ()
    detail: bool = False

    @property
    def key(self) -> str:
        """Metric and filter as results.json has them."""
        return f"{self.metric},{self.filter}"

    @property
    def loss(self) -> float:
        """By how much the run is worse than the baseline; negative where it is better."""
        return -self.difference if self.higher_is_better else self.difference

    @property
    def lost(self) -> int:
        """Documents that became worse, in all tasks of a group."""
        return sum(part.lost for part in self.parts) if self.parts else len(self.worse)

    @property
    def won(self) -> int:
        """Documents that became better."""
        return sum(part.won for part in self.parts) if self.parts else len(self.better)

    @property
    def verdict(self) -> str | None:
        """What the difference is where it is more than chance makes, after correction: "better" or "worse"."""
        if self.corrected is None or self.corrected >= LEVEL:
            return None
        return "worse" if self.loss > 0 else "better"

    def to_dict(self) -> dict[str, Any]:
        """The object that `--json` prints: of the documents that became worse or better the number and the first."""
        return {
            "run": self.run,
            "task": self.task,
            "subtasks": [part.task for part in self.parts],
            "metric": self.key,
            "higher_is_better": self.higher_is_better,
            "documents": self.documents,
            "baseline": self.baseline,
            "value": self.value,
            "difference": self.difference,
            "interval": list(self.interval) if self.interval else None,
            "p_value": self.p_value,
            "p_value_holm": self.corrected,
            "verdict": self.verdict,
            "test": self.test,
            "detectable": self.detectable,
            "worse": {"count": self.lost, "doc_ids": list(self.worse[:EXAMPLES])},
            "better": {"count": self.won, "doc_ids": list(self.better[:EXAMPLES])},
        }
