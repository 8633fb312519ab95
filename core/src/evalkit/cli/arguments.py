"""Which engine and which model: the options that commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from evalkit.cli import complete
from evalkit.errors import UnknownNameError

ENGINE = Annotated[
    str | None, typer.Option(metavar="NAME", autocompletion=complete.engines, help="Engine; see list-engines.")
]
MODEL = Annotated[
    str | None,
    typer.Option(metavar="PATH_OR_NAME", autocompletion=complete.models, help="Path, registered name or hub id."),
]
ENGINE_ARG = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="An option of the engine; the value is YAML. Repeatable.")
]
MODEL_ARG = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="An option of the model, such as dtype=float32. Repeatable.")
]


def add_arguments(values: dict[str, Any], engine_words: list[str], model_words: list[str]) -> None:
    """Check `K=V` words against the engine's and the model's own options, and add them to `values`."""
    from evalkit.environments import find_environment
    from evalkit.model import Model
    from evalkit.options import parse_assignments, parse_free
    from evalkit.plugins import load_engine_class

    if engine_words and values.get("engine"):
        name = values["engine"]
        try:
            given = parse_assignments(engine_words, load_engine_class(name)[0], f"engine {name!r}")
        except UnknownNameError:
            if find_environment(name, values.get("env")) is None:
                raise
            # Its options are known where it is.
            given = parse_free(engine_words)
        values["engine_args"] = {**(values.get("engine_args") or {}), **given}
    if model_words:
        given = parse_assignments(model_words, Model, "the model")
        values["model_args"] = {**(values.get("model_args") or {}), **given}


def add_generation(values: dict[str, Any], gen_words: list[str], template_words: list[str]) -> None:
    """Check the `K=V` words of --gen, and add them and those of --chat-template-arg to `values`."""
    from evalkit.options import parse_assignments, parse_free
    from evalkit.tasks.overrides import GenOptions

    if gen_words:
        values["gen"] = {**(values.get("gen") or {}), **parse_assignments(gen_words, GenOptions, "generation")}
    if template_words:
        values["chat_template_args"] = {**(values.get("chat_template_args") or {}), **parse_free(template_words)}
