"""The documents of a task with their examples. What is wrong with one document stays its own affair."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from evalkit.errors import ConfigError, DataError, DatasetNotFoundError, DocumentError, EmptyDatasetError
from evalkit.runs.spec import RunSpec
from evalkit.tasks.base import Task, checked
from evalkit.tasks.context import Shot
from evalkit.tasks.fewshot import Doc, Drawer


@dataclass(frozen=True, slots=True)
class PlannedDoc:
    """A document, prepared, with its examples. With an `error` it cannot be used: it is neither asked nor scored."""

    doc_id: int
    doc: Doc
    shots: tuple[Shot, ...] = ()
    error: str | None = None


class Documents(NamedTuple):
    """The documents to ask about, how many there were before the limit, and what to tell the user."""

    docs: tuple[PlannedDoc, ...]
    available: int
    warnings: tuple[str, ...]


def planned_docs(task: Task, spec: RunSpec) -> Documents:
    """A task's documents. Raises DataError, also where none of them can be used, and ConfigError."""
    everything = _documents(task, task.split, spec.data_dir)
    chosen = everything[: spec.limited(len(everything))]
    warnings = _kept_number(task, spec)
    if task.takes_shots and task.fewshot.n:
        pool = _pool(task, spec)
        chosen, warnings = _with_shots(task, chosen, pool, spec.seed), warnings + _small_pool(task, len(pool))
    # A field that only scoring reads must be missed now, not after hours of inference.
    docs = tuple(_tried(item, lambda item: checked(task, item.doc_id, item.doc, task.check)) for item in chosen)
    if all(item.error for item in docs):
        raise DocumentError(docs[0].error)
    return Documents(docs, len(everything), warnings)


def count_documents(task: Task, data_dir: str | None) -> int | None:
    """How many documents a task has; None where its data is neither in its package nor in `data_dir`."""
    if data_dir is None and not task.dataset.files:
        return None
    return len(_documents(task, task.split, data_dir))


def _documents(task: Task, split: str, data_dir: str | None) -> list[PlannedDoc]:
    """All documents of a split that the task keeps, numbered in order."""
    raw = task.load(split, data_dir)
    expected = task.dataset.rows.get(split)
    if split == task.split and expected not in (None, len(raw)):
        raise DataError(
            f"split {split!r} of data set {task.dataset.label!r} has {len(raw)} documents where {expected} belong: "
            f"it is incomplete, or another version. Fetch it again with: evalkit data get {task.name}"
        )
    kept: list[PlannedDoc] = []
    for index, doc in enumerate(raw):
        try:
            prepared = checked(task, index, doc, task.prepared)
            if task.keep is None or checked(task, index, prepared, task.keep):
                kept.append(PlannedDoc(len(kept), prepared))
        except DocumentError as error:
            kept.append(PlannedDoc(len(kept), doc, error=str(error)))
    if not kept:
        raise EmptyDatasetError(f"task {task.name!r} keeps none of the {len(raw)} documents of {task.dataset.label}")
    return kept


def _with_shots(task: Task, docs: Sequence[PlannedDoc], pool: Sequence[Doc], seed: int) -> list[PlannedDoc]:
    drawer = Drawer(pool, task.fewshot.sampler, seed, may_hold_doc=task.pool_may_hold_doc)
    try:
        # In document order: each draw moves the generator on, so a limit must only cut the end off.
        drawn = [drawer.draw(item.doc, task.fewshot.n) for item in docs]
    except ConfigError as error:
        raise ConfigError(f"task {task.name!r}: {error}") from error
    pairs = zip(docs, drawn, strict=True)
    return [_tried(item, functools.partial(_shown, task, shots)) for item, shots in pairs]


def _shown(task: Task, examples: Sequence[Doc], item: PlannedDoc) -> PlannedDoc:
    return replace(item, shots=tuple(checked(task, None, example, task.example_of) for example in examples))


def _pool(task: Task, spec: RunSpec) -> Sequence[Doc]:
    if task.fewshot.samples:
        return task.fewshot.samples
    try:
        # One that cannot be used keeps its place, so that draws stay as they are.
        return [item.doc for item in _documents(task, task.fewshot_split, spec.data_dir)]
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(f"few-shot examples of task {task.name!r}: {error}") from error


def _kept_number(task: Task, spec: RunSpec) -> tuple[str, ...]:
    """Who asks for examples must learn that there are none, or the score is read as another."""
    own = task.fewshot.n
    if not task.fewshot.fixed or spec.num_fewshot in (None, own):
        return ()
    return (f"stays {own}-shot, as it is defined: the {spec.num_fewshot} examples asked for were left out",)


def _small_pool(task: Task, size: int) -> tuple[str, ...]:
    """Draws from part of a split are not those from all of it. The first examples are the same."""
    expected = task.dataset.rows.get(task.fewshot_split, size)
    if size >= expected or task.fewshot.samples or task.fewshot.sampler == "first_n":
        return ()
    return (f"examples are drawn from {size} of the {expected} documents of split {task.fewshot_split!r}",)


def _tried(item: PlannedDoc, step: Callable[[PlannedDoc], PlannedDoc | None]) -> PlannedDoc:
    """What `step` makes of a usable document; one that it fails on is marked as unusable."""
    if item.error:
        return item
    try:
        return step(item) or item
    except DocumentError as error:
        return replace(item, error=str(error))
