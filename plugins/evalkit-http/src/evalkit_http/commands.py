"""`evalkit serve`: the evaluation service from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit_http.arguments import ALLOW_HOST, ALLOW_UNAUTHENTICATED, HOST, PORT, TOKEN_FILE
from evalkit_http.merge import command

DEFAULT_PORT = 8000


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("serve")(serve)
    app.command("merge")(command.merge)


def serve(
    host: HOST = "127.0.0.1",
    port: PORT = DEFAULT_PORT,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="Where jobs are kept [default: 'service' below the runs folder]")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A slot for jobs: cuda:0, cpu, ... Repeatable [default: all GPUs, else cpu]"),
    ] = None,
    slots: Annotated[
        int, typer.Option(metavar="N", min=1, help="Slots without a GPU, where no --device is given.")
    ] = 1,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="The longest that a job may run [default: no limit]")
    ] = None,
    max_completed_jobs: Annotated[int, typer.Option(metavar="N", help="Ended jobs to keep.")] = 200,
    max_age_days: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Forget jobs that ended before that [default: never]")
    ] = None,
    checkpoint_wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a job waits for a checkpoint to be complete.")
    ] = 600.0,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="Mirror of data sets [default: EVALKIT_DATA_DIR, else the hub]")
    ] = None,
    model_root: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="D", help="Folder of models that requests may name. Repeatable [default: the current one]"
        ),
    ] = None,
    output_root: Annotated[
        list[Path] | None,
        typer.Option(metavar="D", help="Folder that requests may write to. Repeatable [default: the current one]"),
    ] = None,
    token_file: TOKEN_FILE = None,
    allow_unauthenticated: ALLOW_UNAUTHENTICATED = False,
    allow_host: ALLOW_HOST = None,
    webhook_host: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A host that jobs may notify; * for any. Repeatable.")
    ] = None,
    endpoint_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="A host that requests may name as base_url; it may get the server's keys. Repeatable."
        ),
    ] = None,
    allow_engine_options: Annotated[
        bool,
        typer.Option("--allow-engine-options", help="Let requests hand mappings and programs to a backend: any code."),
    ] = False,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Let requests run what a model writes.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let requests run code that comes with a checkpoint.")
    ] = False,
    allow_references: Annotated[
        bool, typer.Option("--allow-references", help="Let requests name module:attribute and task files: any code.")
    ] = False,
) -> None:
    """Serve evaluations over HTTP: jobs are queued, survive a restart, and run on the devices that they ask for."""
    from evalkit_http.launch_server import launch_server
    from evalkit_http.security import SecuritySettings, Tokens
    from evalkit_http.service.args import ServerArgs

    here = (Path.cwd(),)
    security = SecuritySettings(
        host=host,
        tokens=Tokens.read(token_file),
        allow_unauthenticated=allow_unauthenticated,
        model_roots=tuple(model_root or here),
        output_roots=tuple(output_root or here),
        allowed_hosts=tuple(allow_host or ()),
        trust_remote_code=trust_remote_code,
    )
    args = ServerArgs(
        host=host,
        port=port or DEFAULT_PORT,
        free_port=port == 0,
        max_completed_jobs=max_completed_jobs,
        state_dir=state_dir,
        devices=tuple(device or ()),
        cpu_slots=slots,
        job_timeout=timeout,
        max_age_days=max_age_days,
        checkpoint_wait=checkpoint_wait,
        data_dir=str(data_dir) if data_dir else None,
        webhook_hosts=tuple(webhook_host or ()),
        endpoint_hosts=tuple(endpoint_host or ()),
        allow_engine_options=allow_engine_options,
        allow_references=allow_references,
        allow_code_execution=allow_code_execution,
        security=security,
    )
    try:
        launch_server(args, announce=_announce)
    except KeyboardInterrupt:
        typer.echo("ended; the next server on this folder continues its jobs", err=True)


def _announce(url: str) -> None:
    typer.echo(f"evaluations at {url} (API: {url}/docs, Ctrl-C ends it)")
