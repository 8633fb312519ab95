"""Run an evaluation: tasks -> requests -> session -> journal -> scores -> report. Knows no backend."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import options
from evalkit.answers.cache import AnswerCache, is_from_cache
from evalkit.engine import BaseEngine, BaseInferenceSession, redact, without_redacted
from evalkit.errors import DiskFullError, ModelNotFoundError, RunError, UnknownNameError, did_you_mean
from evalkit.model import Model
from evalkit.plugins import get_plugins, load_engine_class
from evalkit.requests import Output, Request
from evalkit.results import RunResult, Seconds
from evalkit.runs.again import differences, spec_again
from evalkit.runs.context import RunContext
from evalkit.runs.environment import fingerprint, prompts_hash
from evalkit.runs.folder import RESULTS, RunFolder, default_path
from evalkit.runs.infer import OnProgress, check_lengths, infer
from evalkit.runs.journal import Journal
from evalkit.runs.plan import Asked, Plan, make_plan
from evalkit.runs.score import Tally, group_intervals, group_rows, samples
from evalkit.runs.spec import RunSpec, make_spec
from evalkit.specs import EngineSpec, load_object
from evalkit.tasks.context import chat_template
from evalkit.tasks.files import is_task_file


def evaluate(
    tasks: str | Sequence[str],
    *,
    engine: str | BaseEngine,
    model: str | Model,
    on_progress: OnProgress | None = None,
    **fields: Any,
) -> RunResult:
    """Evaluate `model` on `tasks`. The other fields are those of RunSpec (limit, num_fewshot, data_dir, ...).

    Raises EvalkitError for anything that cannot be run; no run folder is left then.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    values = {"tasks": names, **_engine_fields(engine), **_model_fields(model)}
    for name in ("engine_args", "model_args"):
        values[name] = {**values.get(name, {}), **fields.pop(name, {})}
    return run(make_spec({**values, **fields}), on_progress=on_progress)


def resume(path: str | Path, *, on_progress: OnProgress | None = None) -> RunResult:
    """Complete a run that was stopped; nothing is asked twice. Raises RunNotFoundError, RunLockedError."""
    folder = RunFolder.open(Path(path))
    folder.lock()
    try:
        manifest = folder.manifest()
        if manifest.get("status") == "finished" and (done := _finished(folder)) is not None:
            return RunResult.from_dict({**done, "run_dir": str(path)})
        return _Run(_spec_in(manifest, folder), on_progress).execute(folder)
    finally:
        folder.release()


def rerun(
    path: str | Path,
    *,
    output: str | None = None,
    engine_args: dict[str, Any] | None = None,
    model_args: dict[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Start a new run of what the run.json of another says; the result warns where prompts or model are not the same.

    Secrets are not stored: give them again as `engine_args` or `model_args`. Raises ConfigError without them.
    """
    before = RunFolder.open(Path(path)).manifest()
    spec = spec_again(before, str(path), {"engine_args": engine_args or {}, "model_args": model_args or {}})
    result = run(spec.model_copy(update={"output": output}), on_progress=on_progress)
    now = RunFolder.open(Path(result.run_dir)).manifest()
    return dataclasses.replace(result, warnings=(*result.warnings, *differences(before, now, str(path))))


def _finished(folder: RunFolder) -> dict[str, Any] | None:
    """The results, unless requests failed or the file is lost: then the journal's answers are scored again."""
    try:
        found = folder.read_json(RESULTS)
    except RunError:
        return None
    return None if found.get("errors") else found


def _spec_in(manifest: dict[str, Any], folder: RunFolder) -> RunSpec:
    """What run.json says was asked. Fields that an older evalkit did not know have their defaults."""
    fields = without_redacted(manifest.get("spec", {}))
    if newer := sorted(set(fields) - set(RunSpec.model_fields)):
        raise RunError(f"{folder.path} was made by another evalkit: it has a field {newer[0]!r}. Upgrade evalkit")
    return make_spec(fields)


def run(spec: RunSpec, *, on_progress: OnProgress | None = None) -> RunResult:
    """Start a new run."""
    return _Run(spec, on_progress).execute(None)


@dataclass(frozen=True, slots=True)
class BoundModel:
    """An engine together with a model."""

    engine: BaseEngine
    model: Model

    def run(self, tasks: str | Sequence[str], **fields: Any) -> RunResult:
        """Evaluate on `tasks`; see `evaluate`."""
        return evaluate(tasks, engine=self.engine, model=self.model, **fields)

    def session(self) -> BaseInferenceSession:
        """Load the model; the caller closes the session."""
        engine, spec = self.engine, _spec_of(self.engine)
        return engine.build(resolve_model(self.model, spec))


MODEL_PATHS = ("tokenizer_path", "adapter", "chat_template")
Questions = dict[str, list[tuple[Asked, ...]]]
"""By task, for each document, what is asked."""


class _Run:
    """One attempt at a run, in the order in which things can go wrong: cheap checks before the model loads."""

    def __init__(self, spec: RunSpec, on_progress: OnProgress | None) -> None:
        self.started = time.perf_counter()
        self.on_progress = on_progress
        self.written = 0
        self.engine, engine_spec = build_engine(spec.engine, spec.engine_args)
        asked = options.build(Model, {"path": spec.model, **spec.model_args}, "the model")
        self.plan = make_plan(spec)
        self.model = resolve_model(asked, engine_spec)
        self.is_remote = engine_spec.remote
        self.spec = _portable(spec, is_remote=self.is_remote)
        self.answers = AnswerCache(self.engine, spec.engine, self.model) if spec.cache else None

    def execute(self, folder: RunFolder | None) -> RunResult:
        try:
            return self._execute(folder)
        finally:
            if self.answers is not None:
                self.answers.close()

    def _execute(self, folder: RunFolder | None) -> RunResult:
        load_started = time.perf_counter()
        with self.engine.build(self.model) as session:
            load = time.perf_counter() - load_started
            requests = self._requests(session)
            self._check_lengths(session, requests)
            if self.answers is not None:
                self.answers.open(session.describe_execution())
            if folder is not None:
                self._check_model(folder)
                return self._answer(folder, session, requests, load)
            return self._start(session, requests, load)

    def _check_lengths(self, session: BaseInferenceSession, questions: Questions) -> None:
        by_task = {n: [a.request for doc in asked for a in doc] for n, asked in questions.items()}
        check_lengths(session, by_task, truncate=self.spec.truncate)

    def _requests(self, session: BaseInferenceSession) -> Questions:
        template = chat_template(session, self.spec.chat_template_args) if self.spec.apply_chat_template else None
        return {name: task.ask(self.spec.seed, template) for name, task in self.plan.tasks.items()}

    def _start(self, session: BaseInferenceSession, requests: Questions, load: float) -> RunResult:
        path = (
            Path(self.spec.output)
            if self.spec.output
            else default_path("-".join(Path(name).stem if is_task_file(name) else name for name in self.spec.tasks))
        )
        manifest = {
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "status": "running",
            "spec": redact(self.spec.model_dump(exclude={"output"})),
            "model": {"path": redact(self.model.path), "fingerprint": self._fingerprint()},
            "requests": len(_unique(requests)),
            "prompts": prompts_hash(_unique(requests)),
        }
        folder = RunFolder.create(path, manifest)
        try:
            return self._answer(folder, session, requests, load)
        except BaseException as error:
            # Only what this process knows counts: on a full disk the journal may not even open again.
            if self.written == 0:
                folder.remove()
                if isinstance(error, DiskFullError):
                    raise DiskFullError(f"no disk space left for {path}. Free some space, then run again") from error
            raise
        finally:
            folder.release()

    def _fingerprint(self) -> str | None:
        # A server's model may have the name of a folder that happens to lie here.
        return None if self.is_remote else fingerprint(self.model.path)

    def _check_model(self, folder: RunFolder) -> None:
        recorded = folder.manifest().get("model") or {}
        if "fingerprint" in recorded and recorded["fingerprint"] != self._fingerprint():
            raise RunError(f"the model at {self.model.path} changed since {folder.path} was started. Start a new run")

    def _answer(
        self,
        folder: RunFolder,
        session: BaseInferenceSession,
        requests: Questions,
        load: float,
    ) -> RunResult:
        context = self._context(folder, session)
        with Journal(folder.journal_path) as journal:
            get_plugins().hook.run_started(run=context)
            started = time.perf_counter()
            try:
                outputs = infer(
                    session,
                    _unique(requests),
                    journal,
                    batch_size=self.spec.rows,
                    on_progress=self.on_progress,
                    answers=self.answers,
                )
            finally:
                self.written = journal.written
                if self.answers is not None:
                    self.answers.flush()
            journal.finish_attempt(session.token_counts(), load, time.perf_counter() - started)
            result = self._score(context, journal, requests, outputs)
        get_plugins().hook.run_finished(run=context, result=result)
        folder.update_manifest(status="finished")
        return result

    def _context(self, folder: RunFolder, session: BaseInferenceSession) -> RunContext:
        planned = self.plan.tasks
        return RunContext(
            folder=folder,
            spec=self.spec,
            tasks={name: item.task for name, item in planned.items()},
            engine={**self.engine.to_dict(), "execution": redact(session.describe_execution())},
            documents={name: len(item.docs) for name, item in planned.items()},
            shots={name: item.num_fewshot for name, item in planned.items()},
        )

    def _score(
        self,
        context: RunContext,
        journal: Journal,
        requests: Questions,
        outputs: dict[str, Output],
    ) -> RunResult:
        tallies = {name: Tally(planned) for name, planned in self.plan.tasks.items()}
        for name, tally in tallies.items():
            for sample in samples(tally.planned, requests[name], outputs):
                tally.add(sample)
                get_plugins().hook.sample_scored(run=context, sample=sample)
        rows = {name: tally.row() for name, tally in tallies.items()}
        sizes = {name: len(tally.planned.docs) - tally.failed for name, tally in tallies.items()}
        results = {**rows, **group_rows(self.plan, rows, sizes)}
        tokens, load, inference = journal.costs()
        return RunResult(
            run_dir=str(context.folder.path),
            results=results,
            tokens=tokens,
            seconds=Seconds(load, inference, time.perf_counter() - self.started),
            errors=sum(output.error is not None for output in outputs.values()),
            unusable=sum(tally.unusable for tally in tallies.values()),
            details={**_details(self.plan, sizes), **_statistics(self.plan, tallies, results, sizes)},
            warnings=(*_warnings(tallies, journal), *self._cache_warnings()),
            from_cache=sum(is_from_cache(output) for output in outputs.values()),
        )

    def _cache_warnings(self) -> list[str]:
        return [self.answers.warning] if self.answers is not None and self.answers.warning else []


def _unique(questions: Questions) -> dict[str, Request]:
    return {key: request for asked in questions.values() for doc in asked for key, request in doc}


def build_engine(name: str, args: dict[str, Any]) -> tuple[BaseEngine, EngineSpec]:
    """The engine named `name` with its options. Raises UnknownNameError, ConfigError, PluginError."""
    cls, spec = load_engine_class(name)
    return options.build(cls, args, f"engine {name!r}"), spec


def resolve_model(model: Model, engine: EngineSpec) -> Model:
    """`model` with a registered name replaced by a local path in the engine's format. Raises ModelError."""
    if engine.remote:
        return model
    plugins = get_plugins()
    if Path(model.path).exists():
        return dataclasses.replace(model, path=str(Path(model.path).absolute()))
    if model.path in plugins.models.owners:
        registered = plugins.models.get(model.path)
        fitting = next((f for f in engine.formats if f in registered.formats), None)
        if fitting is None:
            raise ModelNotFoundError(
                f"model {model.path!r} comes as {', '.join(registered.formats)}, but engine {engine.name!r} reads "
                f"{', '.join(engine.formats)}. See: evalkit list-engines"
            )
        return dataclasses.replace(model, path=load_object(registered.formats[fitting])())
    if looks_like_path(model.path):
        raise ModelNotFoundError(f"model file {model.path} does not exist. Check --model")
    near = did_you_mean(model.path, plugins.models.owners)
    if near.startswith(" Did") and "/" not in model.path:
        raise UnknownNameError(f"unknown model {model.path!r}.{near} See: evalkit list-models")
    return model


def looks_like_path(name: str) -> bool:
    """Whether a model name can only be meant as a local file or folder."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or name.endswith((".gguf", ".safetensors"))


def _spec_of(engine: BaseEngine) -> EngineSpec:
    reference = f"{type(engine).__module__}:{type(engine).__qualname__}"
    known = (spec for spec in get_plugins().engines if spec.load == reference)
    return next(known, EngineSpec(reference, "", load=reference, formats=("hf", "gguf")))


def _engine_fields(engine: str | BaseEngine) -> dict[str, Any]:
    if isinstance(engine, str):
        return {"engine": engine}
    return {"engine": _spec_of(engine).name, "engine_args": _changed(engine)}


def _model_fields(model: str | Model) -> dict[str, Any]:
    if isinstance(model, str):
        return {"model": model}
    return {"model": model.path, "model_args": {k: v for k, v in _changed(model).items() if k != "path"}}


def _changed(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    found = {}
    for field in dataclasses.fields(value):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if field.init and (current := getattr(value, field.name)) != default:
            found[field.name] = current
    return found


def _portable(spec: RunSpec, *, is_remote: bool) -> RunSpec:
    """`spec` with local paths made absolute, so that a resume may start elsewhere."""
    paths = {"model": None if is_remote else spec.model, "data_dir": spec.data_dir}
    tasks = [str(Path(name).absolute()) if is_task_file(name) else name for name in spec.tasks]
    of_model = {**spec.model_args, **_absolute({name: spec.model_args.get(name) for name in MODEL_PATHS})}
    return spec.model_copy(update={**_absolute(paths), "tasks": tasks, "model_args": of_model})


def _absolute(paths: dict[str, str | None]) -> dict[str, str]:
    # A chat template may be given as text, longer than any file name.
    short = {name: path for name, path in paths.items() if path and "{" not in path}
    return {name: str(Path(path).absolute()) for name, path in short.items() if Path(path).exists()}


def _details(plan: Plan, sizes: dict[str, int]) -> dict[str, Any]:
    planned = plan.tasks
    return {
        "n-samples": {n: {"original": p.available, "effective": sizes[n]} for n, p in planned.items()},
        "higher_is_better": {n: {m.name: m.higher_is_better for m in p.metrics} for n, p in planned.items()},
        "group_subtasks": {name: list(leaves) for name, (_, leaves) in plan.groups.items()},
    }


def _statistics(
    plan: Plan, tallies: dict[str, Tally], results: dict[str, dict[str, Any]], sizes: dict[str, int]
) -> dict[str, Any]:
    """What stands beside the scores of results.json: intervals, and errors where documents come in clusters."""
    found = {name: tally.intervals(results[name]) for name, tally in tallies.items()}
    of_tasks = {name: intervals for name, (intervals, _) in found.items()}
    errors = {name: errors for name, (_, errors) in found.items() if errors}
    intervals = {**of_tasks, **group_intervals(plan, results, of_tasks, sizes)}
    listed = {name: {key: list(interval) for key, interval in row.items()} for name, row in intervals.items()}
    return {"intervals": listed, **({"clustered_stderr": errors} if errors else {})}


def _warnings(tallies: dict[str, Tally], journal: Journal) -> list[str]:
    found = []
    for name, tally in tallies.items():
        found += [f"{name}: {warning}" for warning in tally.planned.warnings]
        found += [f"{name}: {count} samples {kind}" for kind, count in tally.notes.items()]
        if tally.unusable:
            found.append(f"{name}: {tally.unusable} documents not scored because they cannot be used ({tally.fault})")
        if requests := tally.failed - tally.unusable:
            found.append(f"{name}: {requests} documents not scored because a request failed ({tally.error})")
    if journal.damaged:
        found.append(f"{journal.damaged} damaged journal records were asked again")
    return found
