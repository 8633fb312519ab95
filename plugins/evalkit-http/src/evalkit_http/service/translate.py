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
from evalkit_http.security import ForbiddenError, allowed_path, check_engine_options, checked_arguments
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
    values = checked_arguments(values, args.guards)
    check_engine_options(values, endpoint_hosts=args.endpoint_hosts, allow_free=args.allow_engine_options)
    cls, engine = load_engine_class(_registered("engine", request.model, args))
    need = Need(request.num_gpus, request.device)
    slots.check(need)
    model_args, engine_args = _split(values, cls, request.model)
    engine_args |= _device(request, cls, engine_args, slots)
    # On a server a model is a name that means something there, whatever it looks like here.
    is_remote = engine.remote or engine_args.get("base_url") is not None
    path = None if is_remote else _local(asked, engine, args)
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
        "timeout": min(filter(None, (request.timeout, args.job_timeout)), default=None),
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
    if _holds_secret(request):
        raise ConfigError(
            "the request holds a secret, which would be stored. Set it in the server's environment instead"
        )
    if request.allow_code_execution and not args.allow_code_execution:
        raise ConfigError("code that a model writes may not run on this server. Leave out allow_code_execution")


def _holds_secret(request: EvaluateRequest) -> bool:
    """Whether a value looks like a secret, or an option is called one."""
    plain = request.model_dump(mode="json")
    # An idempotency key and a template's "eos_token" are no secrets for their names; they may be by their look.
    named = [plain.pop(name) for name in ("idempotency_key", "chat_template_args")]
    values = _values(named)
    return bool(redact(plain) != plain or redact(values) != values)


def _values(tree: Any) -> list[Any]:
    if isinstance(tree, (dict, list)):
        return [leaf for item in (tree.values() if isinstance(tree, dict) else tree) for leaf in _values(item)]
    return [tree]


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
    # An engine that takes any text still has a spelling of its own: OpenVINO knows "CPU" only.
    own = next(field.default for field in dataclasses.fields(engine) if field.name == "device")
    for name in [own, *names] if isinstance(own, str) and own.lower() == wanted else names:
        try:
            return check_options({"device": name}, engine, f"engine {request.model!r}")
        except ConfigError as error:
            refused = error
    raise refused


@functools.lru_cache(maxsize=256)
def _tasks(names: tuple[str, ...]) -> tuple[Task, ...]:
    return tuple(load_tasks(names))


def _check_tasks(tasks: tuple[Task, ...], request: EvaluateRequest, args: ServerArgs) -> None:
    running = next((task for task in tasks if task.runs_code), None)
    if running and not request.allow_code_execution:
        allowed = "Set allow_code_execution" if args.allow_code_execution else "This server does not allow that"
        raise ConfigError(f"task {running.name!r} {running.code_notice}. {allowed}")
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


def _local(model: str, engine: EngineSpec, args: ServerArgs) -> str | None:
    """The checkpoint on this machine that is meant, which may still have to be written; None for any other name."""
    roots = args.guards.model_roots
    parts = Path(model).parts
    if not parts:
        raise ForbiddenError(f"path {model!r} names no model. Name its folder")
    if model in get_plugins().models and not Path(model).exists():
        is_path = False
    else:
        # "checkpoints/step_5" may be a hub id, unless there is such a folder here.
        is_path = looks_like_path(model) or ("/" in model and any(_may_be_folder(root / parts[0]) for root in roots))
    if is_path:
        return str(allowed_path(model, roots))
    _check_name(model, engine)
    return None


def _may_be_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long, say: no hub has such a name either
        return True


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
