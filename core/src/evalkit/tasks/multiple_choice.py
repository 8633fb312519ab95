"""MultipleChoice: the choice with the best log-probability is the model's answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalkit.requests import LoglikelihoodOutput, LoglikelihoodRequest, Output, Request
from evalkit.tasks.base import Task
from evalkit.tasks.context import Context, Shot
from evalkit.tasks.fewshot import Doc
from evalkit.tasks.metrics import Metric
from evalkit.tasks.scored import ScoredChoice

Gold = int | str | Sequence[int]
LIKELY, HOPELESS = -1.0, -1e6


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """Scores every choice behind the prompt, or one `continuation` behind every choice.

    `gold` is the right index, the right choice's text, or several right indices. With `continuation`,
    `choices` are whole contexts (Winogrande) and `prompt` stays empty.
    """

    choices: Callable[[Doc], Sequence[str]]
    gold: Callable[[Doc], Gold]
    prompt: Callable[[Doc], str] | None = None
    continuation: Callable[[Doc], str] | None = None
    metrics: tuple[str | Metric, ...] = ("acc", "acc_norm")

    def pairs(self, doc: Doc, delimiter: str) -> list[tuple[str, str]]:
        """(question, continuation) of every choice."""
        if self.continuation is not None:
            continuation = delimiter + self.continuation(doc)
            return [(choice, continuation) for choice in self.choices(doc)]
        question = self._question(doc)
        return [(question, delimiter + choice) for choice in self.choices(doc)]

    def shot(self, doc: Doc) -> Shot:
        """The question with its first right choice."""
        right = self.choices(doc)[self.gold_indices(doc)[0]]
        if self.continuation is not None:
            return Shot(right, self.target_delimiter, self.continuation(doc))
        return Shot(self._question(doc), self.target_delimiter, right)

    def requests(self, doc: Doc, context: Context, metrics: Sequence[Metric]) -> tuple[Request, ...]:
        """One request a choice; behind them those without context, where a metric wants them."""
        pairs = self.pairs(doc, self.delimiter(context))
        if len(pairs) < 2:
            raise ValueError(f"a multiple-choice document needs two choices or more, not {len(pairs)}")
        conditional = [LoglikelihoodRequest(context.render(q), continuation) for q, continuation in pairs]
        bare = [LoglikelihoodRequest("", continuation) for _, continuation in pairs]
        return (*conditional, *(bare if any(m.unconditional for m in metrics) else ()))

    def scored(self, doc: Doc, outputs: Sequence[Output], metrics: Sequence[Metric]) -> dict[str, ScoredChoice]:
        """Log-probabilities of the choices."""
        choices = tuple(self.choices(doc))
        logprobs = tuple(o.logprob for o in outputs if isinstance(o, LoglikelihoodOutput))
        bare = logprobs[len(choices) :]
        return {"none": ScoredChoice(logprobs[: len(choices)], choices, self.gold_indices(doc), bare or None)}

    def golden(self, doc: Doc, metrics: Sequence[Metric], *, right: bool) -> tuple[Output, ...]:
        """The right choices likely and the others hopeless, or the other way round."""
        gold = self.gold_indices(doc)
        choices = range(len(self.choices(doc)))
        conditional = [LoglikelihoodOutput(LIKELY if (index in gold) is right else HOPELESS) for index in choices]
        bare = [LoglikelihoodOutput(LIKELY) for _ in choices]
        return (*conditional, *(bare if any(metric.unconditional for metric in metrics) else ()))

    def target(self, doc: Doc) -> Gold:
        """The right index or indices."""
        return self.gold(doc)

    def check(self, doc: Doc) -> None:
        """Read every field; each right answer is one of the choices."""
        super().check(doc)
        right = self.gold_indices(doc)
        # The field read last is the one that is reported.
        choices, gold = len(self.choices(doc)), self.gold(doc)
        given = 1 if isinstance(gold, int | str) else len(gold)
        if not 0 < given == len(right):
            raise ValueError(f"the right answer {gold!r} is none of the {choices} choices")

    def gold_indices(self, doc: Doc) -> tuple[int, ...]:
        """The right indices; one that names no choice is left out, which `check` reports."""
        gold, choices = self.gold(doc), list(self.choices(doc))
        if isinstance(gold, str):
            return (choices.index(gold),) if gold in choices else ()
        indices = (gold,) if isinstance(gold, int) else tuple(gold)
        return tuple(index for index in indices if 0 <= index < len(choices))

    def _question(self, doc: Doc) -> str:
        return self.prompt(doc) if self.prompt is not None else ""
