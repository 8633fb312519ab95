"""Task: what all kinds of tasks share. A kind says how a document becomes requests, and answers a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from evalkit.datasets import DatasetSpec
from evalkit.errors import DocumentError, one_line
from evalkit.requests import Output, Request
from evalkit.tasks.context import Context, Shot
from evalkit.tasks.fewshot import Doc, FewShot
from evalkit.tasks.metrics import Metric

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A benchmark: documents, prompts, and metrics by name or as objects.

    Splits are named as the data set names them; the evaluated one is `test_split`, else `validation_split`.
    `prepare` computes fields that are merged into each document; `keep` leaves documents out.
    """

    takes_shots: ClassVar[bool] = True
    """Whether few-shot examples mean anything to this kind of task."""

    name: str
    dataset: DatasetSpec
    version: str = "1.0"
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    prepare: Callable[[Doc], Mapping[str, Any]] | None = None
    keep: Callable[[Doc], bool] | None = None
    description: str = ""
    fewshot: FewShot = field(default_factory=FewShot)
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    metrics: tuple[str | Metric, ...]

    @property
    def split(self) -> str:
        """The evaluated split."""
        split = self.test_split or self.validation_split
        assert split, f"task {self.name} names neither a test nor a validation split"
        return split

    @property
    def fewshot_split(self) -> str:
        """The split that examples come from."""
        return self.fewshot.split or self.train_split or self.validation_split or self.split

    @property
    def pool_may_hold_doc(self) -> bool:
        """Whether lm-evaluation-harness takes care that a document is no example for itself.

        It compares the *declared* few-shot split with the declared test split, None with None included.
        """
        return self.fewshot.split == self.test_split

    @abstractmethod
    def shot(self, doc: Doc) -> Shot:
        """`doc` as an example."""

    @abstractmethod
    def requests(self, doc: Doc, context: Context, metrics: Sequence[Metric]) -> tuple[Request, ...]:
        """What is asked about `doc`."""

    @abstractmethod
    def scored(self, doc: Doc, outputs: Sequence[Output], metrics: Sequence[Metric]) -> dict[str, Any]:
        """By filter name ("none" without filters), what metrics look at."""

    @abstractmethod
    def target(self, doc: Doc) -> Any:
        """The right answer, for the sample file."""

    def check(self, doc: Doc) -> None:
        """Read every field that requests and scores will need; raises what reading them raises."""
        self.requests(doc, Context(), ())
        self.target(doc)

    def prepared(self, doc: Doc) -> Doc:
        """`doc` with the computed fields."""
        return {**doc, **self.prepare(doc)} if self.prepare else doc

    def delimiter(self, context: Context) -> str:
        """What stands between question and answer: nothing behind a chat template's own turn marker."""
        return self.target_delimiter if context.chat_template is None else ""


def checked(task: Task, index: int | None, doc: Doc, step: Callable[[Doc], T]) -> T:
    """`step(doc)`, its failure turned into a DocumentError. `index` None stands for a few-shot example."""
    where = "a few-shot example" if index is None else f"document {index} of split {task.split!r}"
    try:
        return step(doc)
    except KeyError as error:
        fields = ", ".join(sorted(map(str, doc))) or "none"
        raise DocumentError(
            f"task {task.name!r}: {where} lacks the field {error}. It has: {fields}. "
            f"Check that the data is {task.dataset.label}"
        ) from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise DocumentError(
            f"task {task.name!r}: {where} holds an unusable value ({type(error).__name__}: {one_line(error)}). "
            f"Check that the data is {task.dataset.label}"
        ) from error
