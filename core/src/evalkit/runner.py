"""Run an evaluation: start one, complete one that was stopped, repeat one. Knows no backend.

What happens between the spec of a run and its result stands in `evalkit.runs.attempt`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import RunError
from evalkit.model import Model
from evalkit.results import RunResult
from evalkit.runs.again import differences, recorded_spec
from evalkit.runs.attempt import Attempt
from evalkit.runs.folder import RunFolder
from evalkit.runs.infer import OnProgress
from evalkit.runs.resolve import resolve_model, spec_of
from evalkit.runs.samples import check_samples
from evalkit.runs.spec import RunSpec, make_spec


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


def run(spec: RunSpec, *, on_progress: OnProgress | None = None) -> RunResult:
    """Start a new run."""
    return Attempt(spec, on_progress).execute(None)


def resume(path: str | Path, *, on_progress: OnProgress | None = None) -> RunResult:
    """Complete a run that was stopped; nothing is asked twice. Raises RunNotFoundError, RunLockedError."""
    folder = RunFolder.open(Path(path))
    folder.lock()
    try:
        manifest = folder.manifest()
        if manifest.get("status") == "finished" and (done := _finished(folder)) is not None:
            return RunResult.from_dict({**done, "run_dir": str(path)})
        return Attempt(recorded_spec(manifest, str(path)), on_progress).execute(folder)
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
    spec = recorded_spec(before, str(path), {"engine_args": engine_args or {}, "model_args": model_args or {}})
    result = run(spec.model_copy(update={"output": output}), on_progress=on_progress)
    now = RunFolder.open(Path(result.run_dir)).manifest()
    return dataclasses.replace(result, warnings=(*result.warnings, *differences(before, now, str(path))))


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
        return self.engine.build(resolve_model(self.model, spec_of(self.engine)))


def _finished(folder: RunFolder) -> dict[str, Any] | None:
    """The results, unless requests failed or a file is lost or damaged: then the journal's answers are scored again."""
    try:
        found = folder.results()
        check_samples(folder.path, found, found.get("versions", ()), every_byte=True)
    except RunError:
        return None
    return None if found.get("errors") else found


def _engine_fields(engine: str | BaseEngine) -> dict[str, Any]:
    if isinstance(engine, str):
        return {"engine": engine}
    return {"engine": spec_of(engine).name, "engine_args": _changed(engine)}


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
