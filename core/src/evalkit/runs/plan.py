"""From task names to documents with their examples: all that can be checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from evalkit.errors import ConfigError, PluginError
from evalkit.plugins import get_plugins
from evalkit.requests import GenerationRequest, Request
from evalkit.runs.documents import PlannedDoc, planned_docs
from evalkit.runs.journal import request_key
from evalkit.runs.spec import RunSpec
from evalkit.specs import load_object
from evalkit.tasks.base import Task, checked
from evalkit.tasks.context import ChatTemplate, Context
from evalkit.tasks.files import is_task_file, read_tasks, top_level
from evalkit.tasks.groups import Group
from evalkit.tasks.metrics import Metric, find_metric
from evalkit.tasks.overrides import GenOptions, Overrides


class Asked(NamedTuple):
    """A request and its key in the journal; equal requests have equal keys and are asked once."""

    key: str
    request: Request


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task, its metrics as objects, and its documents in order. `available` counts those before any limit.

    `context` is what all documents' prompts have in common.
    """

    task: Task
    metrics: tuple[Metric, ...]
    docs: tuple[PlannedDoc, ...]
    num_fewshot: int
    available: int
    context: Context = field(default_factory=Context)
    warnings: tuple[str, ...] = ()

    def ask(self, seed: int, chat_template: ChatTemplate | None) -> list[tuple[Asked, ...]]:
        """What is asked about each document, in order: nothing where it cannot be used. Raises DocumentError."""
        return [() if item.error else self._ask(item, seed, chat_template) for item in self.docs]

    def _ask(self, item: PlannedDoc, seed: int, chat_template: ChatTemplate | None) -> tuple[Asked, ...]:
        task = self.task
        base = replace(self.context, shots=item.shots, chat_template=chat_template)
        requests = checked(
            task, item.doc_id, item.doc, lambda doc: task.requests(doc, task.context(doc, base), self.metrics)
        )
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
    tasks = load_tasks(spec.tasks, groups)
    if spec.gen and not any(task.generates for task in tasks):
        raise ConfigError("generation options were given (--gen), but none of the tasks generates. Leave them out")
    return Plan({task.name: _plan_task(task, spec) for task in tasks}, groups)


def load_tasks(names: Sequence[str], groups: dict[str, tuple[Group, tuple[str, ...]]] | None = None) -> list[Task]:
    """The tasks of these names and groups, each once. `groups` receives the groups and their leaves."""
    groups = {} if groups is None else groups
    found: dict[str, Task] = {}
    for name in names:
        own = read_tasks(Path(name)) if is_task_file(name) else {}
        for top in top_level(own) or [name]:
            found.update((task.name, task) for task in _expand(top, groups, (), own))
    return list(found.values())


def load_task(name: str) -> Task | Group:
    """The task or group named `name`, or "module:attribute" of one in development. Raises UnknownNameError."""
    plugins = get_plugins()
    # Registered names may hold a colon themselves: "lm_eval:hellaswag".
    in_development = ":" in name and name not in plugins.tasks
    found = load_object(name if in_development else plugins.task(name).load)
    if not isinstance(found, (Task, Group)):
        raise PluginError(f"task {name!r} is a {type(found).__name__}, not a Task. Report it to the plugin's author")
    return found


def _expand(
    name: str,
    groups: dict[str, tuple[Group, tuple[str, ...]]],
    above: tuple[str, ...],
    own: Mapping[str, Task | Group],
) -> list[Task]:
    if name in above:
        raise PluginError(f"group {name!r} holds itself ({' > '.join(above)}). Report it to the plugin's author")
    found = own.get(name) or load_task(name)
    if isinstance(found, Task):
        return [found]
    leaves = [task for member in found.tasks for task in _expand(member, groups, (*above, name), own)]
    groups[name] = (found, tuple(dict.fromkeys(task.name for task in leaves)))
    return leaves


def _plan_task(task: Task, spec: RunSpec) -> PlannedTask:
    if task.runs_code and not spec.allow_code_execution:
        raise ConfigError(f"task {task.name!r} {task.code_notice}. Allow it with --allow-code-execution")
    task = task.adapted(Overrides(spec.num_fewshot, GenOptions.checked(spec.gen), spec.think_end, spec.seed))
    metrics = tuple(find_metric(metric) for metric in task.metrics)
    docs, available, warnings = planned_docs(task, spec)
    context = Context(
        description=task.description,
        delimiter=task.fewshot_delimiter,
        system=spec.system_prompt or "",
        multiturn=spec.is_multiturn,
        answer_delimiter=task.target_delimiter,
    )
    return PlannedTask(task, metrics, docs, task.fewshot.n, available, context, warnings)


def _seeded(request: Request, seed: int, doc_id: int, index: int) -> Request:
    """A sampled request gets a seed of its own, so that a resumed run draws what an unbroken one does."""
    if isinstance(request, GenerationRequest) and request.is_sampled and request.seed is None:
        return replace(request, seed=(seed * 1_000_003 + doc_id * 1_009 + index) % 2**31)
    return request
