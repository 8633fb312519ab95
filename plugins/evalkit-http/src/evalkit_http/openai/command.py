"""`evalkit serve-model`: a model as an OpenAI-compatible server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from evalkit.cli.arguments import ENGINE, ENGINE_ARG, MODEL, MODEL_ARG, add_arguments
from evalkit.cli.output import JSON, print_json, stdout_reserved
from evalkit.errors import ConfigError
from evalkit_http.arguments import ALLOW_HOST, ALLOW_UNAUTHENTICATED, HOST, PORT, TOKEN_FILE


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve-model")(serve_model)


def serve_model(
    engine: ENGINE = None,
    model: MODEL = None,
    engine_arg: ENGINE_ARG = None,
    model_arg: MODEL_ARG = None,
    served_model_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name in answers [default: the model's own]")
    ] = None,
    host: HOST = "127.0.0.1",
    port: PORT = 8000,
    max_running: Annotated[int, typer.Option(metavar="N", min=1, help="Answers that are generated side by side.")] = 64,
    max_waiting: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests in line; more are told to come again.")
    ] = 1024,
    token_file: TOKEN_FILE = None,
    allow_unauthenticated: ALLOW_UNAUTHENTICATED = False,
    allow_host: ALLOW_HOST = None,
    as_json: bool = JSON,
) -> None:
    """Serve a model to everything that speaks OpenAI's protocol, until Ctrl-C."""
    if engine is None or model is None:
        raise ConfigError("give --engine and --model. See: evalkit list-engines, evalkit list-models")
    from evalkit_http.openai import hosts
    from evalkit_http.openai.server import build_openai_compatible_server
    from evalkit_http.security import SecuritySettings, Tokens

    values: dict[str, Any] = {"engine": engine}
    add_arguments(values, engine_arg or [], model_arg or [])
    asked = {"engine_args": values.get("engine_args"), "model_args": values.get("model_args")}
    if hosts.size() > 1 and hosts.rank() > 0:
        return _follow(engine, model, **asked)
    security = SecuritySettings(
        host=host,
        tokens=Tokens.read(token_file),
        allow_unauthenticated=allow_unauthenticated,
        allowed_hosts=tuple(allow_host or ()),
    )
    server = build_openai_compatible_server(
        engine,
        model,
        **asked,
        host=host,
        port=port,
        served_model_name=served_model_name,
        max_running=max_running,
        max_waiting=max_waiting,
        security=security,
        hosts=hosts.TorchHosts() if hosts.size() > 1 else None,
    )
    with stdout_reserved() as stdout:
        typer.echo(f"loading {model}; {server.url}/ready says when it is there", err=True)
        server.on_ready = lambda: _say_ready(server, as_json, stdout)
        server.serve()
    typer.echo("ended", err=True)


def _say_ready(server: Any, as_json: bool, stdout: Any) -> None:
    name = server.app.state.served.name
    if as_json:
        print_json({"model": name, "url": server.url, "base_url": f"{server.url}/v1"}, stdout)
    else:
        print(f"{name} is ready at {server.url}/v1 (Ctrl-C ends it)", file=stdout, flush=True)


def _follow(engine: str, model: str, *, engine_args: dict[str, Any] | None, model_args: dict[str, Any] | None) -> None:
    """Work with the first host until it ends."""
    from evalkit.model import Model
    from evalkit.options import build
    from evalkit.runner import BoundModel
    from evalkit.runs.resolve import build_engine
    from evalkit_http.openai import hosts

    built, _ = build_engine(engine, engine_args or {})
    chosen = build(Model, {"path": model, **(model_args or {})}, "the model")
    with BoundModel(built, chosen).session() as session:
        others = hosts.TorchHosts()
        others.connect()
        typer.echo(f"host {others.rank} of {others.size} follows the first", err=True)
        hosts.follow(session, others)
