"""Generate: the model writes, filters find the answer in it, metrics compare it with the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evalkit.requests import GenerationOutput, GenerationRequest, Output, Request
from evalkit.tasks.base import Task
from evalkit.tasks.context import Context, Shot
from evalkit.tasks.fewshot import Doc
from evalkit.tasks.filters import Filter
from evalkit.tasks.metrics import Metric
from evalkit.tasks.scored import ScoredGeneration


@dataclass(frozen=True, kw_only=True)
class Generate(Task):
    """Generates behind `prompt(doc)` until a stop string; `answer` gives the accepted text or texts.

    `filters` maps a filter's name to its steps; each name makes metrics of its own ("exact_match,strict").
    `stop` None stands for the few-shot delimiter. `example` is the answer shown in few-shot examples, where it
    differs from the one compared (a worked solution, say).
    """

    prompt: Callable[[Doc], str]
    answer: Callable[[Doc], str | Sequence[str]]
    example: Callable[[Doc], str] | None = None
    stop: tuple[str, ...] | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    filters: Mapping[str, tuple[Filter, ...]] = field(default_factory=lambda: {"none": ()})
    metrics: tuple[str | Metric, ...] = ("exact_match",)

    def answers(self, doc: Doc) -> tuple[str, ...]:
        """The accepted texts."""
        answer = self.answer(doc)
        return (answer,) if isinstance(answer, str) else tuple(answer)

    def shot(self, doc: Doc) -> Shot:
        """Prompt and shown answer."""
        shown = self.example(doc) if self.example else self.answers(doc)[0]
        return Shot(self.prompt(doc), self.target_delimiter, shown)

    def requests(self, doc: Doc, context: Context, metrics: Sequence[Metric]) -> tuple[Request, ...]:
        """One request."""
        return (
            GenerationRequest(
                prompt=context.render(self.prompt(doc)),
                stop=(self.fewshot_delimiter,) if self.stop is None else self.stop,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
            ),
        )

    def scored(self, doc: Doc, outputs: Sequence[Output], metrics: Sequence[Metric]) -> dict[str, ScoredGeneration]:
        """The text each filter finds."""
        texts = [output.text for output in outputs if isinstance(output, GenerationOutput)]
        return {
            name: ScoredGeneration(_apply(steps, texts)[0], self.answers(doc)) for name, steps in self.filters.items()
        }

    def target(self, doc: Doc) -> str | Sequence[str]:
        """The accepted text or texts."""
        return self.answer(doc)

    def check(self, doc: Doc) -> None:
        """Read every field; each accepted answer is a text."""
        super().check(doc)
        for answer in self.answers(doc):
            if not isinstance(answer, str):
                raise TypeError(f"an answer is {answer!r}, not a text")


def _apply(steps: Sequence[Filter], texts: list[str]) -> list[str]:
    for step in steps:
        texts = step(texts)
    return texts
