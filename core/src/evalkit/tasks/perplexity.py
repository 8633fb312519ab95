"""Perplexity: how well a model predicts whole texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evalkit.requests import Output, Request, RollingLoglikelihoodOutput, RollingLoglikelihoodRequest
from evalkit.tasks.base import Task
from evalkit.tasks.context import Context, Shot
from evalkit.tasks.fewshot import Doc
from evalkit.tasks.metrics import Metric
from evalkit.tasks.scored import ScoredPage


@dataclass(frozen=True, kw_only=True)
class Perplexity(Task):
    """Scores every token of `text(doc)`; words and bytes are counted on `counted(doc)`, where it differs."""

    takes_shots: ClassVar[bool] = False

    text: Callable[[Doc], str]
    counted: Callable[[Doc], str] | None = None
    metrics: tuple[str | Metric, ...] = ("word_perplexity", "byte_perplexity", "bits_per_byte")

    def shot(self, doc: Doc) -> Shot:
        """Perplexity tasks take no examples."""
        raise ValueError("a perplexity task takes no few-shot examples")

    def requests(self, doc: Doc, context: Context, metrics: Sequence[Metric]) -> tuple[Request, ...]:
        """The whole text, with neither description nor examples nor chat template."""
        return (RollingLoglikelihoodRequest(self.text(doc)),)

    def scored(self, doc: Doc, outputs: Sequence[Output], metrics: Sequence[Metric]) -> dict[str, ScoredPage]:
        """Log-probability and length of the text."""
        output = outputs[0]
        assert isinstance(output, RollingLoglikelihoodOutput)
        page = self.target(doc)
        return {"none": ScoredPage(output.logprob, len(re.split(r"\s+", page)), len(page.encode()))}

    def target(self, doc: Doc) -> str:
        """The text that words and bytes are counted on."""
        return (self.counted or self.text)(doc)
