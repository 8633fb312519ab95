"""What to load: a path, a registered name or a hub id, and how to read it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from evalkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Model:
    """A model to evaluate, independent of the engine that loads it.

    `path` is a file, a folder, a registered model's name, a hub id, or the model name of a server. `dtype`
    given here overrides the engine's. `chat_template` is a Jinja template, or a file that holds one.
    `options` are passed on to the backend's loader unchanged.
    """

    path: str
    tokenizer_path: str | None = None
    revision: str | None = None
    tokenizer_revision: str | None = None
    dtype: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    chat_template: str | None = None
    max_length: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def refuse_fields(model: Model, engine: str, **advice: str) -> None:
    """Raise ConfigError where fields are set that `engine` has no use for; for each, `advice` says what to do instead.

    Scores would else be those of another model than the one that was asked for.
    """
    for name, step in advice.items():
        if getattr(model, name):
            raise ConfigError(f"engine {engine!r} has no use for the model's {name}. {step}")


def chosen_dtype(model: Model, engine: str, default: str, known: Collection[str]) -> str:
    """The model's dtype, else the engine's. Raises ConfigError where the engine does not know it."""
    dtype = model.dtype or default
    if dtype not in known:
        raise ConfigError(f"engine {engine!r} knows no dtype {dtype!r}. Use {', '.join(known)}")
    return dtype
