"""What to load: a path, a registered name or a hub id, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
