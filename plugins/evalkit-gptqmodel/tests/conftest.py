"""Tiny models quantized on the spot, and sessions on them, each made once for all test files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Quantizing asks for two workers, which it does not give itself on a machine of two cores.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("logbar", reason="needs gptqmodel")

from evalkit.model import Model  # noqa: E402
from evalkit.testing.tiny import tiny_llama, tiny_mistral_sliding  # noqa: E402
from evalkit_gptqmodel.engine import GPTQModel  # noqa: E402
from evalkit_gptqmodel.quiet import quiet  # noqa: E402
from evalkit_gptqmodel.session import GPTQModelSession  # noqa: E402

SENTENCES = (
    "The question is short, and the answer to the question is one of the choices that are given below. ",
    "A man is standing in the kitchen. He takes the water from the table and then he starts to cook the rice. ",
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny models on a machine that does other work: waiting for a second thread takes ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def quantize() -> Callable[..., Path]:
    """Quantizes a checkpoint with GPTQModel into a new folder."""

    def make(source: Path, target: Path, **config: Any) -> Path:
        with quiet(verbose=False):
            import gptqmodel

            settings = gptqmodel.QuantizeConfig(bits=4, group_size=32, **config)
            model = gptqmodel.GPTQModel.load(str(source), settings)
            model.quantize([sentence * 2 for sentence in SENTENCES for _ in range(8)], batch_size=4)
            model.save(str(target))
        return target

    return make


@pytest.fixture(scope="session")
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, context 256, that is not quantized."""
    return tiny_llama(tmp_path_factory.mktemp("llama")).hf


@pytest.fixture(scope="session")
def llama_path(plain_path: Path, quantize: Callable[..., Path]) -> Path:
    """The same, quantized by GPTQ."""
    return quantize(plain_path, plain_path.parent / "gptq")


@pytest.fixture(scope="session")
def awq_path(plain_path: Path, quantize: Callable[..., Path]) -> Path:
    """The same, quantized by AWQ."""
    return quantize(plain_path, plain_path.parent / "awq", method="awq", format="gemm")


@pytest.fixture(scope="session")
def mistral_path(tmp_path_factory: pytest.TempPathFactory, quantize: Callable[..., Path]) -> Path:
    """A Mistral that attends to the last 16 tokens, quantized by GPTQ."""
    folder = tmp_path_factory.mktemp("mistral")
    return quantize(tiny_mistral_sliding(folder / "plain"), folder / "gptq")


def _build(path: Path, **options: Any) -> Iterator[GPTQModelSession]:
    with GPTQModel(**{"dtype": "float32", "device": "cpu", **options}).build(Model(str(path))) as session:
        yield session


@pytest.fixture(scope="session")
def llama(llama_path: Path) -> Iterator[GPTQModelSession]:
    """A session on the Llama, its weights unpacked to float32."""
    yield from _build(llama_path)


@pytest.fixture(scope="session")
def mistral(mistral_path: Path) -> Iterator[GPTQModelSession]:
    """A session on the Mistral, whose window of 16 tokens is shorter than most texts."""
    yield from _build(mistral_path)


@pytest.fixture(scope="session")
def kernel(llama_path: Path) -> Iterator[GPTQModelSession]:
    """A session on the Llama with GPTQModel's kernel for a CPU, which computes in bfloat16."""
    yield from _build(llama_path, dtype="auto", dequantize=False)
