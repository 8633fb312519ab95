"""Tiny models quantized on the spot, and sessions on them, each made once for all test files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

# Quantizing asks for two workers, which it does not give itself on a machine of two cores.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("logbar", reason="needs gptqmodel")

import torch
from safetensors.numpy import load_file, save_file

from evalkit.model import Model
from evalkit.testing.tiny import tiny_llama, tiny_mistral_sliding
from evalkit_gptqmodel.engine import GPTQModel
from evalkit_gptqmodel.quiet import quiet
from evalkit_gptqmodel.session import GPTQModelSession

SENTENCES = (
    "The question is short, and the answer to the question is one of the choices that are given below. ",
    "A man is standing in the kitchen. He takes the water from the table and then he starts to cook the rice. ",
)


def pytest_configure(config: pytest.Config) -> None:
    """GPTQModel's settings hold a temporary folder that nothing closes."""
    config.addinivalue_line("filterwarnings", "ignore:Implicitly cleaning up:ResourceWarning")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny models on a machine that does other work: waiting for a second thread takes ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def quantize() -> Callable[[Path, Path], Path]:
    """Quantizes a checkpoint with GPTQModel into a new folder."""

    def make(source: Path, target: Path) -> Path:
        # It writes its log to a folder `logs` where it runs.
        with quiet(verbose=False), contextlib.chdir(source.parent):
            import gptqmodel

            settings = gptqmodel.QuantizeConfig(bits=4, group_size=32, offload_to_disk=False)
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
def llama_path(plain_path: Path, quantize: Callable[[Path, Path], Path]) -> Path:
    """The same, quantized by GPTQ."""
    return quantize(plain_path, plain_path.parent / "gptq")


@pytest.fixture(scope="session")
def awq_path(plain_path: Path) -> Path:
    """The same, rounded into AWQ's layout."""
    return write_awq(plain_path, plain_path.parent / "awq")


@pytest.fixture(scope="session")
def mistral_path(tmp_path_factory: pytest.TempPathFactory, quantize: Callable[[Path, Path], Path]) -> Path:
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


# ── an AWQ checkpoint of the layout "gemm", by its definition: GPTQModel makes some on CUDA only ─────────────
GROUP = 32
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring columns is in which 4 bits of a word."""
CONFIG = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}


def write_awq(source: Path, target: Path) -> Path:
    """Round the linear layers of a checkpoint to 4 bits; beside it, in `exact`, the weights that result."""
    shutil.copytree(source, target)
    shutil.copytree(source, target / "exact")
    stored = load_file(source / "model.safetensors")
    packed: dict[str, NDArray[Any]] = {}
    for name, weight in list(stored.items()):
        if not name.endswith("_proj.weight"):
            packed[name] = weight
            continue
        codes, zeros, scales = _round(weight.T)
        base = name.removesuffix(".weight")
        packed |= {f"{base}.qweight": _pack(codes), f"{base}.qzeros": _pack(zeros), f"{base}.scales": scales}
        groups = np.arange(len(codes)) // GROUP
        stored[name] = np.ascontiguousarray((scales.astype(np.float32)[groups] * (codes - zeros[groups])).T)
    # It writes the memory of an array as it lies.
    packed = {name: np.ascontiguousarray(values) for name, values in packed.items()}
    save_file(packed, target / "model.safetensors", metadata={"format": "pt"})
    save_file(stored, target / "exact" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": CONFIG}), encoding="utf-8")
    return target


def _round(weight: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float16]]:
    """Codes [in, out], zeros and scales [groups, out]."""
    grouped = weight.reshape(-1, GROUP, weight.shape[1])
    low, high = grouped.min(1), grouped.max(1)
    scales = ((high - low) / 15).astype(np.float16)
    wide = scales.astype(np.float32)
    zeros = np.clip(np.round(-low / wide), 0, 15).astype(np.int32)
    codes = np.clip(np.round(grouped / wide[:, None]) + zeros[:, None], 0, 15).astype(np.int32)
    return codes.reshape(weight.shape), zeros, scales


def _pack(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    words = np.zeros((len(codes), codes.shape[1] // 8), np.uint32)
    for place, column in enumerate(ORDER):
        words |= codes[:, column::8].astype(np.uint32) << np.uint32(4 * place)
    return words.view(np.int32)
