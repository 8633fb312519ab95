"""`evalkit run`: evaluate a model on tasks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit.cli import complete
from evalkit.cli.arguments import ENGINE, ENGINE_ARG, MODEL, MODEL_ARG, add_arguments, add_generation
from evalkit.cli.output import JSON, print_json, stdout_reserved
from evalkit.cli.progress import progress_bar
from evalkit.cli.tables import print_result
from evalkit.errors import ConfigError

if TYPE_CHECKING:
    from evalkit.results import RunResult

EXIT_INCOMPLETE = 1
"""Some documents have no score."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK...", autocompletion=complete.tasks, help="Tasks, groups or task files."),
    ] = None,
    engine: ENGINE = None,
    model: MODEL = None,
    engine_arg: ENGINE_ARG = None,
    model_arg: MODEL_ARG = None,
    num_fewshot: Annotated[
        int | None, typer.Option(metavar="N", help="Examples before each question [default: the task's]")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(metavar="N", help="Only the first N documents of each task; 0.1: a tenth of them.")
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Rows in a batch; no score depends on it [default: auto]")
    ] = None,
    gen: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="Generation: temperature=0.7, max_new_tokens=N, repeats=8, ... Repeatable."),
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Ask through the model's chat template.")
    ] = False,
    chat_template_arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A variable of the template: enable_thinking=false.")
    ] = None,
    fewshot_as_multiturn: Annotated[
        bool | None,
        typer.Option(
            "--fewshot-as-multiturn/--no-fewshot-as-multiturn",
            help="Examples as turns of their own [default: with a chat template]",
            show_default=False,
        ),
    ] = None,
    system_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="An instruction before everything else.")
    ] = None,
    think_end: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What ends a model's thought, such as '</think>'.")
    ] = None,
    allow_code_execution: Annotated[
        bool,
        typer.Option("--allow-code-execution", help="Let tasks run what the model writes; not all have a sandbox."),
    ] = False,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Keep the end of prompts that are longer than the context.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Take answers from the answer cache, and add new ones to it.")
    ] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Run the engine in a process of its own, whose death ends no run.")
    ] = False,
    env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.environments,
            help="Run the engine in this environment; see env list.",
        ),
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(metavar="N", help="Start an isolated engine, or a server, that died again, so often [default: 0]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of few-shot draws and sampling [default: 1234]")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="Mirror of data sets [default: EVALKIT_DATA_DIR, else the hub]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="D", help="Folder of this run [default: runs/<time>-<tasks>]")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="YAML file with the same fields.")] = None,
    as_json: bool = JSON,
) -> None:
    """Evaluate a model on tasks, and keep every answer in a run folder."""
    from evalkit import runner
    from evalkit.runs.spec import make_spec

    values = {
        "tasks": tasks or None,
        "engine": engine,
        "model": model,
        "num_fewshot": num_fewshot,
        "limit": limit,
        "batch_size": _batch_size(batch_size),
        "apply_chat_template": apply_chat_template or None,
        "fewshot_as_multiturn": fewshot_as_multiturn,
        "system_prompt": system_prompt,
        "think_end": think_end,
        "allow_code_execution": allow_code_execution or None,
        "truncate": truncate or None,
        "cache": cache or None,
        "isolate": isolate or None,
        "env": env,
        "restarts": restarts,
        "seed": seed,
        "data_dir": str(data_dir) if data_dir else None,
        "output": str(output) if output else None,
    }
    merged = merge(config, {name: value for name, value in values.items() if value is not None})
    merged.setdefault("data_dir", os.environ.get("EVALKIT_DATA_DIR"))
    add_arguments(merged, engine_arg or [], model_arg or [])
    add_generation(merged, gen or [], chat_template_arg or [])
    spec = make_spec(merged)
    with stdout_reserved() as stdout, progress_bar() as on_progress:
        result = runner.run(spec, on_progress=on_progress)
        report(result, as_json, stdout)


def report(result: RunResult, as_json: bool, stdout: Any) -> None:
    """Print a result; exit with status 1 where requests failed."""
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(result.to_dict(), stdout)
    else:
        print_result(result, stdout)
    if result.errors:
        typer.echo(f"{result.errors} requests failed; retry them with: evalkit resume {result.run_dir}", err=True)
    if result.errors or result.unusable:
        raise typer.Exit(EXIT_INCOMPLETE)


def merge(config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of the YAML file, those of the command line winning."""
    from evalkit.runs.spec import read_yaml

    return {**(read_yaml(config) if config else {}), **given}


def _batch_size(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--batch-size is a number of rows or 'auto', not {text!r}")
    return int(text)
