"""Turn `K=V` words and YAML mappings into validated options of an engine or a model."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt

from evalkit.errors import ConfigError, did_you_mean

T = TypeVar("T")
Positive = Annotated[int, Gt(0)]
NotNegative = Annotated[int, Ge(0)]
"""Types for options that count something."""


def parse_assignments(words: Iterable[str], cls: type[Any], owner: str) -> dict[str, Any]:
    """Options from `K=V` words, each value read as YAML, or as plain text where the option wants text."""
    texts = _split(words, f" Options of {owner}: {_names(cls)}")
    return {name: _first_valid(cls, name, [_yaml(text), text], owner) for name, text in texts.items()}


def parse_free(words: Iterable[str]) -> dict[str, Any]:
    """Values from `K=V` words, each read as YAML, under any name."""
    return {name: _yaml(text) for name, text in _split(words).items()}


def _split(words: Iterable[str], hint: str = "") -> dict[str, str]:
    texts = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{word!r} is not of the form NAME=VALUE.{hint}")
        texts[name] = text
    return texts


def check_options(values: Mapping[str, Any], cls: type[Any], owner: str) -> dict[str, Any]:
    """The same for values that are already parsed. Raises ConfigError with the nearest right name."""
    return {name: _first_valid(cls, name, [value], owner) for name, value in values.items()}


def build(cls: type[T], values: Mapping[str, Any], owner: str) -> T:
    """An instance of the dataclass `cls`. Raises ConfigError for values that it refuses."""
    try:
        return cls(**check_options(values, cls, owner))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{owner} refuses its options: {error}. Options: {_names(cls)}") from error


def _fields(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.init] if dataclasses.is_dataclass(cls) else []


def _names(cls: type[Any]) -> str:
    return ", ".join(_fields(cls)) or "none"


def _first_valid(cls: type[Any], name: str, candidates: list[Any], owner: str) -> Any:
    from pydantic import ValidationError

    known = _fields(cls)
    if name not in known:
        raise ConfigError(f"{owner} has no option {name!r}.{did_you_mean(name, known)} Options: {_names(cls)}")
    hint, adapter = _checker(cls, name)  # type: ignore[arg-type]  # mypy doubts that a class is hashable
    if adapter is None:
        return candidates[0]
    problem = ""
    for value in candidates:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            problem = problem or error.errors()[0]["msg"]
    raise ConfigError(
        f"option {name!r} of {owner}: {problem}, not {candidates[0]!r}. Give a value of type {_type_name(hint)}"
    )


@functools.lru_cache(maxsize=1024)
def _checker(cls: type[Any], name: str) -> tuple[Any, Any]:
    """The type of an option and what checks its values; a server asks for the same ones all day."""
    from pydantic import PydanticUserError, TypeAdapter

    hint = typing.get_type_hints(cls, include_extras=True)[name]
    try:
        return hint, TypeAdapter(hint)
    except PydanticUserError:  # an option of a type that pydantic does not know is the engine's own to check
        return hint, None


def _type_name(hint: Any) -> str:
    if isinstance(hint, type):
        return hint.__name__
    return re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", str(hint).replace("typing.", ""))


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
