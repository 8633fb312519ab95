"""From task names to documents with their examples: all that can be checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from evalkit.datasets import load_split
from evalkit.errors import ConfigError, DatasetNotFoundError, EmptyDatasetError, PluginError
from evalkit.plugins import get_plugins
from evalkit.requests import GenerationRequest, Request
from evalkit.runs.journal import request_key
from evalkit.runs.spec import RunSpec
from evalkit.specs import load_object
from evalkit.tasks.base import Task, checked
from evalkit.tasks.context import ChatTemplate, Context, Shot
from evalkit.tasks.fewshot import Doc, Drawer
from evalkit.tasks.groups import Group
from evalkit.tasks.metrics import Metric


class Asked(NamedTuple):
    """A request and its key in the journal; equal requests have equal keys and are asked once."""

    key: str
    request: Request


@dataclass(frozen=True, slots=True)
class PlannedDoc:
    """A document, prepared, with its examples."""

    doc_id: int
    doc: Doc
    shots: tuple[Shot, ...]


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task, its metrics as objects, and its documents in order. `available` counts those before any limit."""

    task: Task
    metrics: tuple[Metric, ...]
    docs: tuple[PlannedDoc, ...]
    num_fewshot: int
    available: int

    def ask(self, seed: int, chat_template: ChatTemplate | None) -> list[tuple[Asked, ...]]:
        """What is asked about each document, in order. Raises DocumentError."""
        return [self._ask(item, seed, chat_template) for item in self.docs]

    def _ask(self, item: PlannedDoc, seed: int, chat_template: ChatTemplate | None) -> tuple[Asked, ...]:
        task = self.task
        context = Context(task.description, item.shots, task.fewshot_delimiter, chat_template)
        requests = checked(task, item.doc_id, item.doc, lambda doc: task.requests(doc, context, self.metrics))
        seeded = (_seeded(request, seed, item.doc_id, index) for index, request in enumerate(requests))
        return tuple(Asked(request_key(request), request) for request in seeded)


@dataclass(frozen=True, slots=True)
class Plan:
    """Tasks by name in the order asked, and the groups that were asked for."""

    tasks: dict[str, PlannedTask]
    groups: dict[str, tuple[Group, tuple[str, ...]]]


def make_plan(spec: RunSpec) -> Plan:
    """Load tasks and documents and draw examples. Raises UnknownNameError, DataError, ConfigError."""
    groups: dict[str, tuple[Group, tuple[str, ...]]] = {}
    names: dict[str, Task] = {}
    for name in spec.tasks:
        for task in _expand(name, groups, ()):
            names[task.name] = task
    return Plan({name: _plan_task(task, spec) for name, task in names.items()}, groups)


def load_task(name: str) -> Task | Group:
    """The task or group named `name`, or "module:attribute" of one in development. Raises UnknownNameError."""
    found = load_object(name if ":" in name else get_plugins().task(name).load)
    if not isinstance(found, (Task, Group)):
        raise PluginError(f"task {name!r} is a {type(found).__name__}, not a Task. Report it to the plugin's author")
    return found


def _expand(name: str, groups: dict[str, tuple[Group, tuple[str, ...]]], above: tuple[str, ...]) -> list[Task]:
    if name in above:
        raise PluginError(f"group {name!r} holds itself ({' > '.join(above)}). Report it to the plugin's author")
    found = load_task(name)
    if isinstance(found, Task):
        return [found]
    leaves = [task for member in found.tasks for task in _expand(member, groups, (*above, name))]
    groups[name] = (found, tuple(dict.fromkeys(task.name for task in leaves)))
    return leaves


def _plan_task(task: Task, spec: RunSpec) -> PlannedTask:
    docs = _documents(task, task.split, spec.data_dir)
    asked = task.fewshot.n if spec.num_fewshot is None else spec.num_fewshot
    number = asked if task.takes_shots else 0
    chosen = docs[: spec.limit]
    drawn = _draw(task, chosen, number, spec) if number else [()] * len(chosen)
    items = (PlannedDoc(index, doc, shots) for index, (doc, shots) in enumerate(zip(chosen, drawn, strict=True)))
    metrics = tuple(m if isinstance(m, Metric) else get_plugins().metrics.get(m) for m in task.metrics)
    planned = PlannedTask(task, metrics, tuple(items), number, len(docs))
    for item in planned.docs:
        # A field that only scoring reads must be missed now, not after hours of inference.
        checked(task, item.doc_id, item.doc, task.check)
    return planned


def _documents(task: Task, split: str, data_dir: str | None) -> list[Doc]:
    docs = load_split(task.dataset, split, data_dir)
    prepared = [checked(task, index, doc, task.prepared) for index, doc in enumerate(docs)]
    keep = task.keep
    kept = [doc for index, doc in enumerate(prepared) if keep is None or checked(task, index, doc, keep)]
    if not kept:
        raise EmptyDatasetError(f"task {task.name!r} keeps none of the {len(docs)} documents of {task.dataset.label}")
    return kept


def _draw(task: Task, docs: Sequence[Doc], number: int, spec: RunSpec) -> list[tuple[Shot, ...]]:
    drawer = Drawer(_pool(task, spec), task.fewshot.sampler, spec.seed, may_hold_doc=task.pool_may_hold_doc)
    try:
        # In document order: each draw moves the generator on, so a limit must only cut the end off.
        drawn = [drawer.draw(doc, number) for doc in docs]
        return [tuple(checked(task, None, example, task.shot) for example in shots) for shots in drawn]
    except ConfigError as error:
        raise ConfigError(f"task {task.name!r}: {error}") from error


def _pool(task: Task, spec: RunSpec) -> Sequence[Doc]:
    if task.fewshot.samples:
        return task.fewshot.samples
    try:
        return _documents(task, task.fewshot_split, spec.data_dir)
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(f"few-shot examples of task {task.name!r}: {error}") from error


def _seeded(request: Request, seed: int, doc_id: int, index: int) -> Request:
    """A sampled request gets a seed of its own, so that a resumed run draws what an unbroken one does."""
    if isinstance(request, GenerationRequest) and request.is_sampled and request.seed is None:
        return replace(request, seed=(seed * 1_000_003 + doc_id * 1_009 + index) % 2**31)
    return request
