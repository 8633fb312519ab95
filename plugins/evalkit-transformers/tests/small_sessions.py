"""Sessions of small checkpoints, and what the tests ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import EvalkitError
from evalkit.model import Model
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit_transformers.engine import Transformers
from evalkit_transformers.session import TransformersSession


def float32_session(path: Path | str, model: dict[str, Any] | None = None, **engine: Any) -> TransformersSession:
    """A session on the CPU, in float32 unless told otherwise."""
    options = {"dtype": "float32", "device": "cpu", **engine}
    return TransformersSession(Transformers(**options), Model(str(path), **(model or {})))


def refused(kind: type[EvalkitError], path: Path | str, *words: str, **options: Any) -> None:
    """Assert that the session is refused with an error of this very kind, on one line that holds the words."""
    with pytest.raises(EvalkitError) as caught:
        float32_session(path, **options)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for word in words:
        assert word in message


def prompt_ids(session: TransformersSession, text: str) -> list[int]:
    """The token ids of a prompt, from the Hugging Face tokenizer."""
    ids: list[int] = session.hf_tokenizer(text)["input_ids"]
    return ids


def answer(session: TransformersSession, request: GenerationRequest) -> GenerationOutput:
    """The output of a request that is asked alone."""
    output = session.generate([request])[0]
    assert output.error is None
    return output
