"""From what a run was told to what it runs with: the engine by its name, the model by its name or path."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from evalkit import options
from evalkit.engine import BaseEngine
from evalkit.environments import find_environment
from evalkit.environments.environment import Environment
from evalkit.errors import ConfigError, ModelNotFoundError, UnknownNameError, did_you_mean
from evalkit.isolation.engine import IsolatedEngine
from evalkit.model import Model
from evalkit.plugins import get_plugins, load_engine_class
from evalkit.runs.spec import RunSpec
from evalkit.servers import ServableEngine
from evalkit.specs import EngineSpec, load_object
from evalkit.tasks.files import is_task_file

MODEL_PATHS = ("tokenizer_path", "adapter", "chat_template")


def build_engine(name: str, args: dict[str, Any]) -> tuple[BaseEngine, EngineSpec]:
    """The engine named `name` with its options. Raises UnknownNameError, ConfigError, PluginError."""
    cls, spec = load_engine_class(name)
    engine: BaseEngine = options.build(cls, args, f"engine {name!r}")
    return engine, _configured(spec, engine)


def _configured(spec: EngineSpec, engine: BaseEngine) -> EngineSpec:
    """The spec of an engine as its options make it."""
    return dataclasses.replace(spec, remote=True) if engine.is_remote else spec


def choose_engine(spec: RunSpec) -> tuple[BaseEngine, EngineSpec]:
    """The engine of a run, in a process of its own where that is wanted, or where only an environment has it."""
    if (served := _served_engine(spec)) is not None:
        return served
    if spec.isolate or spec.env:
        return isolated_engine(spec, find_environment(spec.engine, spec.env))
    try:
        return build_engine(spec.engine, spec.engine_args)
    except UnknownNameError:
        environment = find_environment(spec.engine)
        if environment is None:
            raise
        return isolated_engine(spec, environment)


def _served_engine(spec: RunSpec) -> tuple[BaseEngine, EngineSpec] | None:
    """The engine of a run that asks a server of its library, which is a process of its own; None for any other."""
    if not spec.engine_args.keys() & {"start_server", "base_url"}:
        return None
    try:
        engine, known = build_engine(spec.engine, spec.engine_args)
    except UnknownNameError as error:
        if spec.engine_args.get("start_server"):
            raise ConfigError(
                f"{error} To start its server its package must be installed here, its library need not be: "
                f"pip install evalkit-{spec.engine}"
            ) from error
        return None
    if not isinstance(engine, ServableEngine) or not engine.is_served:
        return None
    if spec.isolate:
        raise ConfigError("a server is a process of its own already. Leave out --isolate")
    if engine.is_remote and (spec.env or spec.restarts):
        raise ConfigError("a server that runs already has its own environment. Leave out --env and --restarts")
    if not engine.is_remote:
        env, restarts = spec.env or engine.env, spec.restarts or engine.restarts
        engine = dataclasses.replace(engine, env=env, restarts=restarts)
    return engine, known


def isolated_engine(spec: RunSpec, environment: Environment | None) -> tuple[BaseEngine, EngineSpec]:
    """The engine of a run in a process of `environment`, or of this Python."""
    if environment is None:
        _, engine = load_engine_class(spec.engine)
        return IsolatedEngine(spec.engine, spec.engine_args, restarts=spec.restarts), engine
    python, variables = environment.python, environment.child_variables()
    return IsolatedEngine(spec.engine, spec.engine_args, python, variables, spec.restarts), environment.spec


def spec_of(engine: BaseEngine) -> EngineSpec:
    """The spec that an engine is registered with; one of its own where it is not."""
    reference = f"{type(engine).__module__}:{type(engine).__qualname__}"
    known = (spec for spec in get_plugins().engines if spec.load == reference)
    return _configured(next(known, EngineSpec(reference, "", load=reference, formats=("hf", "gguf"))), engine)


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


def portable(spec: RunSpec, *, is_remote: bool = False) -> RunSpec:
    """`spec` with local paths made absolute, so that a resume may start elsewhere; a remote model's name is no path."""
    paths = {"model": None if is_remote else spec.model, "data_dir": spec.data_dir}
    tasks = [str(Path(name).absolute()) if is_task_file(name) else name for name in spec.tasks]
    of_model = {**spec.model_args, **_absolute({name: spec.model_args.get(name) for name in MODEL_PATHS})}
    return spec.model_copy(update={**_absolute(paths), "tasks": tasks, "model_args": of_model})


def _absolute(paths: dict[str, str | None]) -> dict[str, str]:
    # A chat template may be given as text, longer than any file name.
    short = {name: path for name, path in paths.items() if path and "{" not in path}
    return {name: str(Path(path).absolute()) for name, path in short.items() if Path(path).exists()}
