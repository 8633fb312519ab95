"""What plugins register: small frozen descriptions; the code behind them loads when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evalkit.errors import PluginError, one_line


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine selectable with `--engine NAME`.

    `load` is "module:Class". `formats` are the model formats that it reads, best first ("hf", "gguf").
    `capabilities` are words for the list: "generate", "loglikelihood", "chat", "beams", ... A `remote` engine asks a
    server: its models are names that mean something there, never files here.
    """

    name: str
    summary: str
    load: str
    capabilities: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("hf",)
    remote: bool = False


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task selectable by name. `load` is "module:attribute" of a Task or a Group."""

    name: str
    summary: str
    load: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskFamily:
    """Tasks whose names begin with `prefix`, too many to be named by every command.

    `load` is "module:function", which returns their TaskSpecs; it is called when one of them is wanted, or all are.
    """

    prefix: str
    load: str

    @property
    def name(self) -> str:
        """What it is registered under."""
        return self.prefix


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model selectable by name. `formats` maps a format to "module:function" that returns a local path."""

    name: str
    summary: str
    formats: Mapping[str, str] = field(default_factory=dict)


def load_object(reference: str) -> Any:
    """The object behind "module:attribute". Raises PluginError with the cause."""
    module_name, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise PluginError(
            f"{reference!r} cannot be loaded ({one_line(error)}). Reinstall the package that provides it"
        ) from error
