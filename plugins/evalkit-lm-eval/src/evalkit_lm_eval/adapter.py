"""A task of lm-evaluation-harness as a task of evalkit: its requests and scores, evalkit's runner between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from evalkit.errors import RequestError
from evalkit.requests import (
    GenerationOutput,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    RollingLoglikelihoodRequest,
)
from evalkit.tasks.base import Task
from evalkit.tasks.context import Context, Shot
from evalkit.tasks.fewshot import Doc, FewShot
from evalkit.tasks.metrics import Metric
from evalkit.tasks.overrides import Overrides
from evalkit.tasks.thoughts import endless_thoughts, without_thought
from evalkit_lm_eval.data import described
from evalkit_lm_eval.definition import Definition
from evalkit_lm_eval.generation import stops, to_request
from evalkit_lm_eval.harness import Instance
from evalkit_lm_eval.live import LiveTask, unwrapped
from evalkit_lm_eval.metrics import Scored, task_metrics
from evalkit_lm_eval.plugin import PREFIX

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HarnessTask(Task):
    """Asks what the harness asks, drawing its examples, and scores with its filters and metrics."""

    takes_shots: ClassVar[bool] = False  # the harness draws its own
    code_notice: ClassVar[str] = "executes what the model writes, WITHOUT a sandbox"

    live: LiveTask

    @property
    def split(self) -> str:
        """The evaluated split, by the harness's name for it."""
        return self.test_split or self.validation_split or "test"

    @property
    def example_splits(self) -> tuple[str, ...]:
        """The split that the harness draws from, by its own rules."""
        definition = self.live.definition
        is_listed = self.fewshot.split is None and _drawing(definition.config).get("samples") is not None
        has_none = (self.fewshot.fixed and not self.fewshot.n) or definition.output_type == "loglikelihood_rolling"
        return () if is_listed or has_none else (self.fewshot_split,)

    def adapted(self, overrides: Overrides) -> Self:
        """The task as a run wants it."""
        return type(self)(**_fields(self.live.definition, overrides))

    def load(self, split: str, data_dir: str | None) -> Sequence[Doc]:
        """The documents that the harness evaluates."""
        return self.live.load(data_dir)

    def check(self, doc: Doc) -> None:
        """Build the harness's requests once: one that it cannot build must not end the run later."""
        for instance in self.live.trial(doc):
            self._request(instance)
        self.target(doc)

    def shot(self, doc: Doc) -> Shot:
        """The harness draws and writes examples itself."""
        raise ValueError("lm-evaluation-harness writes its own examples")

    def requests(self, doc: Doc, context: Context, metrics: Sequence[Metric]) -> tuple[Request, ...]:
        """The harness's requests, each as often as the task repeats it."""
        instances = self.live.instances(doc, context)
        return tuple(self._request(instance) for instance in instances for _ in range(instance.repeats or 1))

    def _request(self, instance: Instance) -> Request:
        return to_evalkit(instance)

    def scored(self, doc: Doc, outputs: Sequence[Output], metrics: Sequence[Metric]) -> dict[str, Scored]:
        """What each of the harness's filters leaves, and the values it gives."""
        responses = [self._response(output) for output in outputs]
        found = self.live.scores(doc, responses)
        self._report_others({name for _, values in found.values() for name in values}, metrics)
        return {name: Scored(_plain(filtered), _plain(values)) for name, (filtered, values) in found.items()}

    def _report_others(self, names: set[str], metrics: Sequence[Metric]) -> None:
        """Say once which values the task gives that its configuration does not announce."""
        for name in sorted(names - {metric.name for metric in metrics} - self.live.unannounced):
            self.live.unannounced.add(name)
            log.warning("task %s also gives %r, which its configuration does not list: not counted", self.name, name)

    def _response(self, output: Output) -> Any:
        if isinstance(output, GenerationOutput):
            return output.text
        return (output.logprob, output.is_greedy) if isinstance(output, LoglikelihoodOutput) else output.logprob

    def target(self, doc: Doc) -> Any:
        """The harness's target."""
        return self.live.task.doc_to_target(unwrapped(doc))


@dataclass(frozen=True, kw_only=True)
class HarnessGenerate(HarnessTask):
    """One whose answers the model writes."""

    generates: ClassVar[bool] = True

    @property
    def _think_end(self) -> str | None:
        return self.live.overrides.think_end

    def _request(self, instance: Instance) -> Request:
        if self._think_end is None:
            return to_evalkit(instance)
        # A stop string may occur in a thought, which must not end there.
        prompt, arguments = instance.args
        return to_request(prompt, {**arguments, "until": ()})

    def _response(self, output: Output) -> Any:
        """The answer without its thought."""
        return without_thought(
            super()._response(output), self._think_end, stops(self.live.task.config.generation_kwargs)
        )

    def remarks(self, outputs: Sequence[Output]) -> tuple[str, ...]:
        """Thoughts that never ended."""
        return endless_thoughts(outputs, self._think_end)


def make_task(definition: Definition) -> HarnessTask:
    """The task behind a definition."""
    cls = HarnessGenerate if definition.output_type == "generate_until" else HarnessTask
    return cls(**_fields(definition, Overrides()))


def _fields(definition: Definition, overrides: Overrides) -> dict[str, Any]:
    config, live = definition.config, LiveTask(definition, overrides)
    fewshot_split = config.get("fewshot_split") or _drawing(config).get("split")
    path = config.get("dataset_path") or getattr(config.get("class"), "DATASET_PATH", None)
    return {
        "name": PREFIX + definition.name,
        "version": definition.version,
        "dataset": described(path or definition.name, config.get("dataset_name"), config.get("dataset_kwargs") or {}),
        "test_split": config.get("test_split"),
        "validation_split": config.get("validation_split"),
        "runs_code": definition.runs_code,
        "train_split": config.get("training_split"),
        "fewshot": FewShot(live.shots, fewshot_split, fixed=config.get("num_fewshot") == 0),
        "metrics": task_metrics(live),
        "live": live,
    }


def _drawing(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the harness draws examples; nothing is said by default."""
    found = config.get("fewshot_config")
    return found if isinstance(found, Mapping) else {}


def to_evalkit(instance: Instance) -> Request:
    """A request of the harness as evalkit's. Raises RequestError for one that is not made of text."""
    kind, arguments = instance.request_type, instance.args
    if kind == "generate_until" and len(arguments) == 2:
        return to_request(*arguments)
    if kind == "loglikelihood" and len(arguments) == 2:
        return LoglikelihoodRequest(*arguments)
    if kind == "loglikelihood_rolling" and len(arguments) == 1:
        return RollingLoglikelihoodRequest(*arguments)
    raise RequestError(f"evalkit has no request of kind {kind!r} with {len(arguments)} arguments. Leave the task out")


def _plain(value: Any) -> Any:
    """NumPy's values as Python's: sample files are JSON. Tuples stay, aggregates unpack them."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
