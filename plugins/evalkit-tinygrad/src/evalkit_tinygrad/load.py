"""Load a GGUF file with tinygrad's own loader, and refuse what it would load wrongly."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from tinygrad import Device
from tinygrad.helpers import DEV, Context, Target, getenv
from tinygrad.llm.gguf import gguf_load
from tinygrad.llm.model import Transformer, TransformerBlock
from tinygrad.nn.state import get_state_dict

from evalkit.errors import ConfigError, MissingDependencyError, ModelError, ModelNotFoundError, one_line
from evalkit.gguf_files import gguf_bytes
from evalkit.memory import available_memory
from evalkit.model import Model, chosen_dtype, refuse_fields
from evalkit_tinygrad.engine import Dtype, Tinygrad

ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3moe")
"""Those whose layers tinygrad computes as their authors do. It would load others without a word."""
ADVICE = {
    "adapter": "Merge it into the checkpoint before converting that to GGUF, or use --engine transformers",
    "options": "tinygrad's settings are --engine-arg options of the engine",
}
"""What to do instead of setting a field that means nothing here."""
FACTORS = "rope_freqs.weight"
"""What the frequencies of rotary angles are divided by; tinygrad leaves them out, `rotary_angles` does not."""

UNREADABLE = (
    AssertionError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    OverflowError,
    EOFError,
    OSError,
    MemoryError,
    struct.error,
)
"""What tinygrad's reader comes to raise on a damaged file."""


def checked_file(name: str) -> Path:
    """The path of a GGUF file. Raises ModelNotFoundError, ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise ModelError(f"{path} is a folder; the tinygrad engine reads GGUF files. Use --engine transformers for it")
    if not path.is_file():
        raise ModelNotFoundError(f"model file {path} does not exist. Check --model, which takes a GGUF file here")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file. Use --engine transformers for Hugging Face checkpoints")
    return path


@contextmanager
def using(device: str | None) -> Iterator[None]:
    """Within it, tinygrad's device is this one: it is one setting for the whole process. Raises ConfigError."""
    try:
        context = Context(DEV=DEV.value if device is None else [Target.parse(part) for part in device.split(";")])
    except RuntimeError as error:
        raise ConfigError(f"tinygrad cannot use {device}: {one_line(error, 200)}") from error
    with context:
        yield


def choose_device(engine: Tinygrad) -> str:
    """The name of the device in use. Raises ConfigError, MissingDependencyError."""
    try:
        name: str = Device.DEFAULT
        Device[name]
    except Exception as error:
        raise ConfigError(f"tinygrad cannot use {engine.device or 'any device'}: {one_line(error, 200)}") from error
    if name == "CPU" and "LLVM" not in str(DEV.value) and not shutil.which("clang"):
        raise MissingDependencyError(
            "tinygrad compiles for the CPU with clang, which is not installed. Install it with: apt install clang"
        )
    return name


def free_kept_memory(device: str) -> None:
    """Give back the buffers that tinygrad keeps for later tensors."""
    allocator = Device[device].allocator
    if hasattr(allocator, "free_cache"):
        allocator.free_cache()


def weights_dtype(engine: Tinygrad, model: Model, device: str) -> str:
    """What weights are unpacked to: float16 is slow on a CPU. Raises ConfigError."""
    dtype = chosen_dtype(model, "tinygrad", engine.dtype, get_args(Dtype))
    if dtype != "auto":
        return dtype
    return "float32" if device == "CPU" else "float16"


def load_model(model: Model, device: str, dtype: str) -> tuple[Any, Mapping[str, Any], Any]:
    """tinygrad's model, the file's header, and factors of the rotary angles or None. Raises ConfigError, ModelError."""
    refuse_fields(model, "tinygrad", **ADVICE)
    path = checked_file(model.path)
    # Reading the header alone would take the whole file into memory.
    _check_memory(path, "has", gguf_bytes(path), device)
    half = dtype == "float16"
    try:
        header, weights = gguf_load(path)
        if problem := _problem(header, weights):
            raise ModelError(f"{path.name} {problem}. Use --engine llamacpp")
        unpacked = sum(int(np.prod(tensor.shape)) for tensor in weights.values()) * (2 if half else 4)
        _check_memory(path, "unpacks to", unpacked, device)
        factors = weights.get(FACTORS)
        with _environment("HALF", str(int(half))):
            # Unpacked once: else every pass would do it again.
            loaded, _ = Transformer.from_gguf(path, realize=True)
    except ModelError:
        raise
    except UNREADABLE as error:
        raise ModelError(f"tinygrad cannot load {path}: {one_line(error, 200)}. Check the file") from error
    if problem := _lost(loaded, weights):
        raise ModelError(f"{path.name} {problem}. Use --engine llamacpp")
    return loaded, header, None if factors is None else factors.numpy()


def _check_memory(path: Path, what: str, size: int, device: str) -> None:
    room = available_memory()
    if device == "CPU" and room is not None and size > room:
        raise ModelError(
            f"{path.name} {what} {size / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB of memory are free. "
            "Use --engine llamacpp, which computes with packed weights"
        )


def _problem(header: Mapping[str, Any], weights: Mapping[str, Any]) -> str | None:
    """What in a file tinygrad would pass over without a word, and so compute something else; or None."""
    name = header.get("general.architecture")
    if name not in ARCHITECTURES:
        return f"is of the architecture {name!r}; the tinygrad engine knows {', '.join(ARCHITECTURES)}"
    scaling = header.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none" or f"{name}.rope.scale_linear" in header:
        return f"scales its rotary angles ({scaling}), which tinygrad does not"
    # llama.cpp does it for every Llama with experts, whether the file says so or not.
    if name == "llama" and header.get(f"{name}.expert_count") and not header.get(f"{name}.expert_weights_norm"):
        return "has experts whose weights tinygrad would not normalise"
    # A file has their rows in another order, as it has those of the weights, which alone tinygrad puts back.
    if name == "llama" and any(tensor.endswith(("attn_q.bias", "attn_k.bias")) for tensor in weights):
        return "is a Llama with biases in its attention, which tinygrad reads in a wrong order"
    return None


def _lost(loaded: Any, weights: Mapping[str, Any]) -> str | None:
    """What of a file has not become part of the model, or cannot be batched; or None."""
    if any(type(block) is not TransformerBlock for block in loaded.blk) or loaded.blk[0].config.attn_output_gate:
        return "has layers of a kind that evalkit cannot batch in tinygrad"
    lost = sorted(set(weights) - set(get_state_dict(loaded)) - {FACTORS})
    if lost:
        return f"has {len(lost)} tensors that tinygrad leaves out, {lost[0]} among them"
    return None


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Within it, tinygrad sees a variable, which it reads from the environment once."""
    before = os.environ.get(name)
    os.environ[name] = value
    getenv.cache_clear()
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
        getenv.cache_clear()


def rotary_angles(config: Any, length: int, factors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Cosines, then sines, of every position: [length, rotary size]. `factors` divide the frequencies."""
    steps = np.arange(0, config.rope_dim, 2, dtype=np.float32)[: config.rope_dim // 2] / config.rope_dim
    frequencies = 1.0 / (config.rope_theta**steps)
    if factors is not None:
        frequencies = frequencies / factors
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies[None].astype(np.float32)
    return np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
