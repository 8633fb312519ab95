"""Requests and outputs as JSON, for files and for other processes."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

from evalkit.requests import (
    GenerationOutput,
    GenerationPart,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)

KINDS: dict[str, type[Output]] = {
    "generation": GenerationOutput,
    "loglikelihood": LoglikelihoodOutput,
    "rolling": RollingLoglikelihoodOutput,
}

Value = Request | Output | GenerationPart
TYPES: dict[str, type[Value]] = {
    cls.__name__: cls
    for cls in (
        *KINDS.values(),
        GenerationPart,
        GenerationRequest,
        LoglikelihoodRequest,
        RollingLoglikelihoodRequest,
    )
}


def kind_of(request: Request) -> str:
    """The request's kind, a key of KINDS."""
    if isinstance(request, GenerationRequest):
        return "generation"
    return "loglikelihood" if isinstance(request, LoglikelihoodRequest) else "rolling"


def encode_output(output: Output) -> tuple[str, str]:
    """An output's kind and its fields as JSON."""
    kind = next(name for name, cls in KINDS.items() if isinstance(output, cls))
    return kind, json.dumps(dataclasses.asdict(output))


def decode_output(kind: str, text: str) -> Output:
    """The output that `encode_output` was given."""
    output: Output = _adapter(kind).validate_python(json.loads(text))
    return output


def to_plain(value: Value) -> list[Any]:
    """A request, an output or a part of one as what JSON can hold."""
    return [type(value).__name__, dataclasses.asdict(value)]


def from_plain(plain: list[Any]) -> Any:
    """The value that `to_plain` was given."""
    name, fields = plain
    return _adapter(name).validate_python(fields)


@functools.cache
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(KINDS.get(name) or TYPES[name])
