"""From what a client asked to what a job's process is told; all that can be refused is refused here."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.engine import redact
from evalkit.errors import ConfigError, ModelNotFoundError, UnknownNameError, did_you_mean
from evalkit.model import Model
from evalkit.options import check_options
from evalkit.plugins import get_plugins, load_engine_class
from evalkit.runs.plan import load_tasks
from evalkit.runs.spec import make_spec
from evalkit.specs import EngineSpec
from evalkit.tasks.base import Task
from evalkit.tasks.files import is_task_file
from evalkit.tasks.overrides import GenOptions
from evalkit_http.security import allowed_path, check_arguments
from evalkit_http.security.paths import looks_like_path
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.protocol import EvaluateRequest
from evalkit_http.service.slots import CPU, GPU, Need, Slots, kind
from evalkit_http.service.webhooks import check_webhook

MODEL_NAMES = ("pretrained", "model", "path")
GEN_NAMES = {"until": "stop", "max_gen_toks": "max_new_tokens"}
SAME_FIELDS = (
    "tasks",
    "num_fewshot",
    "apply_chat_template",
    "chat_template_args",
    "fewshot_as_multiturn",
    "system_prompt",
    "think_end",
    "allow_code_execution",
    "truncate",
    "cache",
    "seed",
)


def evaluation_work(request: EvaluateRequest, args: ServerArgs, slots: Slots) -> dict[str, Any]:
    """A job's work: the fields of a run, its slots, its checkpoint. Raises EvalkitError for what cannot be run."""
    _check_wishes(request, args)
    check_webhook(request.webhook, args)
    values = dict(request.model_args or {})
    names = tuple(_registered("task", name, args) for name in request.tasks)
    asked = _take_model(values)
    check_arguments(values, args.guards)
    cls, engine = load_engine_class(_registered("engine", request.model, args))
    need = Need(request.num_gpus, request.device)
    slots.check(need)
    model_args, engine_args = _split(values, cls, request.model)
    engine_args |= _device(request, cls, engine_args, slots)
    path = _local(asked, args)
    if path is None:
        _check_name(asked, engine)
    tasks = _tasks(names)
    _check_tasks(tasks, request, args)
    spec = {
        **{name: value for name in SAME_FIELDS if (value := getattr(request, name)) is not None},
        "engine": request.model,
        "engine_args": engine_args,
        "model": path or asked,
        "model_args": model_args,
        "limit": _limit(request.limit),
        "batch_size": _batch_size(request.batch_size),
        "gen": _generation(request.gen_kwargs),
        "data_dir": args.data_dir,
    }
    given = {name: value for name, value in spec.items() if value not in (None, {})}
    make_spec(given)
    return {
        "spec": given,
        "slots": {"count": need.count, "device": need.device},
        "timeout": request.timeout or args.job_timeout,
        "checkpoint": path,
        "webhook": request.webhook,
        "prefix": args.temp_dir_prefix,
        "output_dir": _output_dir(request, args),
    }


def _check_wishes(request: EvaluateRequest, args: ServerArgs) -> None:
    if request.predict_only:
        raise ConfigError(
            "predict_only is not supported: a run always scores its answers. Leave it out, and read the answers at "
            "/jobs/{job_id}/samples/{task}"
        )
    plain = request.model_dump(mode="json")
    if redact(plain) != plain:
        raise ConfigError(
            "the request holds a secret, which would be stored. Set it in the server's environment instead"
        )
    if request.allow_code_execution and not args.allow_code_execution:
        raise ConfigError("code that a model writes may not run on this server. Leave out allow_code_execution")


def _registered(what: str, name: str, args: ServerArgs) -> str:
    """`name`, if a plugin registered it: any other would import what a stranger names."""
    registry: Any = get_plugins().engines if what == "engine" else get_plugins().tasks
    if not args.allow_references or (":" not in name and not is_task_file(name)):
        registry.get(name)
    return name


def _take_model(values: dict[str, Any]) -> str:
    found = [name for name in MODEL_NAMES if name in values]
    if len(found) != 1 or not isinstance(values[found[0]], str) or not values[found[0]].strip():
        raise ConfigError('model_args names the model once, as "pretrained", "model" or "path": {"pretrained": "..."}')
    return str(values.pop(found[0]))


def _split(values: dict[str, Any], engine: type[Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the model, and those of the engine. Raises ConfigError for one of neither."""
    of_model, of_engine = _options(Model) - {"path"}, _options(engine)
    for option in values:
        if option not in of_model | of_engine:
            hint = did_you_mean(option, of_model | of_engine)
            raise ConfigError(f"neither engine {name!r} nor the model has an option {option!r}.{hint}")
    model_args = {key: value for key, value in values.items() if key in of_model}
    engine_args = {key: value for key, value in values.items() if key not in of_model}
    check_options(model_args, Model, "the model")
    check_options(engine_args, engine, f"engine {name!r}")
    return model_args, engine_args


def _options(cls: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls) if field.init} if dataclasses.is_dataclass(cls) else set()


def _device(request: EvaluateRequest, engine: type[Any], given: Mapping[str, Any], slots: Slots) -> dict[str, Any]:
    """The engine's device, as its process sees it: of the slots that it gets, the first is number 0."""
    if request.device is None or "device" in given or "device" not in _options(engine):
        return {}
    wanted = kind(request.device)
    names = {GPU: [f"{GPU}:0", GPU, "auto"], CPU: [CPU, CPU.upper(), "auto"]}.get(wanted, [request.device, wanted])
    for name in names:
        try:
            return check_options({"device": name}, engine, f"engine {request.model!r}")
        except ConfigError as error:
            refused = error
    raise refused


@functools.lru_cache(maxsize=256)
def _tasks(names: tuple[str, ...]) -> tuple[Task, ...]:
    return tuple(load_tasks(names))


def _check_tasks(tasks: tuple[Task, ...], request: EvaluateRequest, args: ServerArgs) -> None:
    running = next((task.name for task in tasks if task.runs_code), None)
    if running and not request.allow_code_execution:
        allowed = "Set allow_code_execution" if args.allow_code_execution else "This server does not allow that"
        raise ConfigError(f"task {running!r} executes what the model writes, in a sandbox. {allowed}")
    if request.gen_kwargs and not any(task.generates for task in tasks):
        raise ConfigError("gen_kwargs was given, but none of the tasks generates. Leave it out")


def _limit(value: float | None) -> int | float | None:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _batch_size(value: int | str | None) -> int | str | None:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _generation(given: str | dict[str, Any] | None) -> dict[str, Any]:
    """Generation options from a mapping, or from "temperature=0.7,top_p=0.9" as lm-eval writes them."""
    values = _pairs(given) if isinstance(given, str) else given or {}
    named = {GEN_NAMES.get(name, name): value for name, value in values.items()}
    if isinstance(named.get("stop"), (str, int, float)):
        named["stop"] = [str(named["stop"])]
    GenOptions.checked(named)
    return named


def _pairs(text: str) -> dict[str, Any]:
    words = [word.strip().partition("=") for word in text.split(",") if word.strip()]
    if wrong := next((name for name, equals, _ in words if not equals), None):
        raise ConfigError(f"gen_kwargs holds {wrong!r}, which is not of the form NAME=VALUE")
    return {name: _value(value) for name, _, value in words}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _local(model: str, args: ServerArgs) -> str | None:
    """The checkpoint on this machine that is meant, which may still have to be written; None for any other name."""
    roots = args.guards.model_roots
    if model in get_plugins().models and not Path(model).exists():
        return None
    # "checkpoints/step_5" may be a hub id, unless there is such a folder here.
    is_ours = "/" in model and any((root / Path(model).parts[0]).is_dir() for root in roots)
    return str(allowed_path(model, roots)) if is_ours or looks_like_path(model) else None


def _check_name(model: str, engine: EngineSpec) -> None:
    """Raise for a registered model in another format, and for a name that was probably meant to be one."""
    models = get_plugins().models
    if model in models:
        formats = models.get(model).formats
        if not set(engine.formats) & set(formats):
            raise ModelNotFoundError(
                f"model {model!r} comes as {', '.join(formats)}, but engine {engine.name!r} reads "
                f"{', '.join(engine.formats)}. Choose another engine"
            )
    elif "/" not in model and (near := did_you_mean(model, models.owners)).startswith(" Did"):
        raise UnknownNameError(f"unknown model {model!r}.{near}")


def _output_dir(request: EvaluateRequest, args: ServerArgs) -> str | None:
    given = request.output_dir
    return None if given is None else str(allowed_path(given, args.guards.output_roots))


def canonical(request: EvaluateRequest) -> dict[str, Any]:
    """The request as it is stored and shown."""
    found: dict[str, Any] = json.loads(request.model_dump_json(exclude={"idempotency_key"}))
    return found
