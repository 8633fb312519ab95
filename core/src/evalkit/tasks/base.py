"""Task: what all kinds of tasks share. A kind says how a document becomes requests, and answers a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

from evalkit.datasets import DatasetSpec, load_split
from evalkit.errors import DocumentError, EvalkitError, one_line
from evalkit.requests import Output, Request
from evalkit.tasks.context import Context, Shot
from evalkit.tasks.fewshot import Doc, FewShot
from evalkit.tasks.metrics import Metric
from evalkit.tasks.overrides import Overrides

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A benchmark: documents, prompts, and metrics by name or as objects.

    Splits are named as the data set names them; the evaluated one is `test_split`, else `validation_split`.
    `prepare` computes fields that are merged into each document; `keep` leaves documents out. `answer_prefix` begins
    every answer, so that the model goes on from it. `runs_code` says that scoring executes what the model wrote.
    `text_fields` must hold texts: a prompt would ask for the word "None" where one is missing.
    `cluster` says which documents belong together (questions about one text): their answers are not independent.
    """

    takes_shots: ClassVar[bool] = True
    """Whether few-shot examples mean anything to this kind of task."""
    generates: ClassVar[bool] = False
    """Whether generation options mean anything to it."""
    code_notice: ClassVar[str] = "executes what the model writes"
    """What one that `runs_code` says before it is allowed to."""

    name: str
    dataset: DatasetSpec
    version: str = "1.0"
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    prepare: Callable[[Doc], Mapping[str, Any]] | None = None
    keep: Callable[[Doc], bool] | None = None
    cluster: Callable[[Doc], Hashable] | None = None
    description: str = ""
    answer_prefix: str | Callable[[Doc], str] = ""
    runs_code: bool = False
    text_fields: tuple[str, ...] = ()
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
    def example_splits(self) -> tuple[str, ...]:
        """The splits that its examples come from, however many a run asks for."""
        has_none = not self.takes_shots or (self.fewshot.fixed and not self.fewshot.n)
        return () if has_none or self.fewshot.samples else (self.fewshot_split,)

    @property
    def pool_may_hold_doc(self) -> bool:
        """Whether lm-evaluation-harness takes care that a document is no example for itself.

        It compares the *declared* few-shot split with the declared test split, None with None included.
        """
        return self.fewshot.split == self.test_split

    def adapted(self, overrides: Overrides) -> Self:
        """The task as a run wants it."""
        if overrides.num_fewshot is None or not self.takes_shots or self.fewshot.fixed:
            return self
        return replace(self, fewshot=replace(self.fewshot, n=overrides.num_fewshot))

    def load(self, split: str, data_dir: str | None) -> Sequence[Doc]:
        """All documents of a split, as they lie in the data set. Raises DataError."""
        return load_split(self.dataset, split, data_dir)

    @abstractmethod
    def shot(self, doc: Doc) -> Shot:
        """`doc` as an example."""

    def example_of(self, doc: Doc) -> Shot:
        """`doc` as an example, its texts checked."""
        self.check_texts(doc)
        return self.shot(doc)

    @abstractmethod
    def requests(self, doc: Doc, context: Context, metrics: Sequence[Metric]) -> tuple[Request, ...]:
        """What is asked about `doc`."""

    @abstractmethod
    def scored(self, doc: Doc, outputs: Sequence[Output], metrics: Sequence[Metric]) -> dict[str, Any]:
        """By filter name ("none" without filters), what metrics look at."""

    @abstractmethod
    def target(self, doc: Doc) -> Any:
        """The right answer, for the sample file."""

    def context(self, doc: Doc, base: Context) -> Context:
        """What stands around the question of `doc`: `base`, with the beginning of its answer."""
        prefix = self.answer_prefix
        return replace(base, answer_prefix=prefix(doc) if callable(prefix) else prefix)

    def remarks(self, outputs: Sequence[Output]) -> tuple[str, ...]:
        """What a reader of the results should know about a document's answers."""
        return ()

    def golden(self, doc: Doc, metrics: Sequence[Metric], *, right: bool) -> tuple[Output, ...] | None:
        """What a model that is always right (or always wrong) answers; None where nobody can say."""
        return None

    def check(self, doc: Doc) -> None:
        """Read every field that requests and scores will need; raises what reading them raises."""
        self.check_texts(doc)
        self.requests(doc, self.context(doc, Context()), ())
        self.target(doc)
        if self.cluster:
            hash(self.cluster(doc))

    def check_texts(self, doc: Doc) -> None:
        """Raise TypeError where a field that must hold a text holds anything else."""
        for name in self.text_fields:
            if not isinstance(doc[name], str):
                raise TypeError(f"{doc[name]!r} is not a text")

    def prepared(self, doc: Doc) -> Doc:
        """`doc` with the computed fields."""
        return {**doc, **self.prepare(doc)} if self.prepare else {**doc}

    def delimiter(self, context: Context) -> str:
        """What stands between question and answer: nothing behind a chat template's own turn marker."""
        begun = bool(context.answer_prefix) and not context.answer_prefix[-1].isspace()
        return self.target_delimiter if context.chat_template is None or begun else ""


def checked(task: Task, index: int | None, doc: Doc, step: Callable[[Doc], T]) -> T:
    """`step(doc)`, its failure turned into a DocumentError. `index` None stands for a few-shot example."""
    where = "a few-shot example" if index is None else f"document {index} of split {task.split!r}"
    reading = _Reading(doc)
    try:
        return step(reading)
    except KeyError as error:
        fields = ", ".join(sorted(map(str, doc))) or "none"
        raise DocumentError(
            f"task {task.name!r}: {where} lacks the field {error}. It has: {fields}. "
            f"Check that the data is {task.dataset.label}"
        ) from error
    except (EvalkitError, OSError, MemoryError):  # no document's fault
        raise
    except Exception as error:  # a task is somebody else's code: whatever it raises is its report
        raise DocumentError(
            f"task {task.name!r}: {where} holds an unusable value{reading.field} ({type(error).__name__}: "
            f"{one_line(error)}). "
            f"Check that the data is {task.dataset.label}"
        ) from error


class _Reading(dict[str, Any]):
    """A document that remembers which field was read last: the one at fault when reading fails."""

    last: str | None = None

    def __getitem__(self, name: str) -> Any:
        self.last = name
        return super().__getitem__(name)

    @property
    def field(self) -> str:
        """The field, for a message."""
        return f" in field {self.last!r}" if self.last is not None else ""
