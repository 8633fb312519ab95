"""Servers that the tests of `serve-model` share: real sockets, the fake engine, and a tiny real model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from evalkit.testing.tiny import tiny_llama
from evalkit_http.openai.server import ModelServer, build_openai_compatible_server

FAKE = "evalkit.testing.fake:Fake"
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama's checkpoint, long enough for examples in a prompt."""
    return tiny_llama(tmp_path_factory.mktemp("tiny"), context=512).hf


@pytest.fixture(scope="session")
def fake_server() -> Iterator[ModelServer]:
    """The fake engine, served."""
    with build_openai_compatible_server(FAKE, "any") as server:
        yield server


@pytest.fixture(scope="session")
def tiny_server(tiny: Path) -> Iterator[ModelServer]:
    """The tiny Llama on Transformers, served."""
    pytest.importorskip("evalkit_transformers")
    import torch

    # Threads of a tiny model only wait for each other, on a machine where others work too.
    torch.set_num_threads(1)
    with build_openai_compatible_server("transformers", str(tiny), engine_args={"dtype": "float32"}) as server:
        yield server


@contextmanager
def asker(server: ModelServer) -> Iterator[Ask]:
    """`ask(path, **body)`: the answer; anything but status 200 fails."""

    def ask(path: str, **body: Any) -> dict[str, Any]:
        response = client.post(path, json=body)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield ask


@pytest.fixture
def ask(fake_server: ModelServer) -> Iterator[Ask]:
    """Ask the fake."""
    with asker(fake_server) as found:
        yield found


@pytest.fixture
def ask_tiny(tiny_server: ModelServer) -> Iterator[Ask]:
    """Ask the tiny Llama."""
    with asker(tiny_server) as found:
        yield found


@pytest.fixture
def openai_client(tiny_server: ModelServer) -> Iterator[OpenAI]:
    """OpenAI's own client of the tiny Llama."""
    with OpenAI(base_url=f"{tiny_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
