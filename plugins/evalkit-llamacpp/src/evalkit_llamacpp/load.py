"""Load a GGUF file, with a clear error for what llama.cpp could only crash on or mutter about."""

from __future__ import annotations

import ctypes
import logging
import re
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as api

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError
from evalkit.gguf_files import gguf_bytes
from evalkit.memory import available_memory
from evalkit.model import Model, refuse_fields
from evalkit_llamacpp import logs
from evalkit_llamacpp.engine import LlamaCpp

log = logging.getLogger(__name__)

SPLIT_MODES = {"none": api.LLAMA_SPLIT_MODE_NONE, "layer": api.LLAMA_SPLIT_MODE_LAYER, "row": api.LLAMA_SPLIT_MODE_ROW}
NO_DEVICES = (ctypes.c_void_p * 1)(None)
"""A list of GPUs that ends at once: llama.cpp would else use one for large products, without any layer there."""
REGISTERED = {"cuda": rb"\bCUDA :", "metal": rb"\b(MTL|Metal) :"}
"""How llama.cpp's description of itself names what it is built for."""

ADVICE = {
    "dtype": "A GGUF file has the precision of its weights: give one of another quantization with --model",
    "adapter": "Merge it into the checkpoint before converting that to GGUF, or use --engine transformers",
    "options": "llama.cpp's settings are --engine-arg options of the engine",
}
"""What to do instead of setting a field that means nothing here."""


def load_model(engine: LlamaCpp, model: Model, *, on_gpu: bool) -> Any:
    """The model's handle. Raises ConfigError, ModelNotFoundError, ModelError."""
    refuse_fields(model, "llamacpp", **ADVICE)
    logs.install(verbose=engine.verbose)
    path = checked_file(model.path)
    llama_cpp.llama_backend_init()
    if not on_gpu:
        _check_memory(path)
    params = model_params(engine, on_gpu=on_gpu)
    with logs.listening() as said:
        handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not handle:
        raise ModelError(f"llama.cpp cannot load {path}: {_cause(said)}. Check the file, or convert it anew")
    if problem := _unsuitable(handle):
        llama_cpp.llama_model_free(handle)
        raise ModelError(f"{path} {problem}; the llamacpp engine evaluates decoder-only language models")
    return handle


def _unsuitable(handle: Any) -> str | None:
    """Why texts cannot be scored token by token with a model, or None."""
    if llama_cpp.llama_model_has_encoder(handle) or not llama_cpp.llama_model_has_decoder(handle):
        return "is not a decoder-only language model"
    if llama_cpp.llama_vocab_type(llama_cpp.llama_model_get_vocab(handle)) == api.LLAMA_VOCAB_TYPE_NONE:
        return "has no vocabulary"
    # Some diffusion models are marked by `causal` only.
    if llama_cpp.llama_model_is_diffusion(handle):
        return "is a diffusion model"
    if metadata(handle, f"{metadata(handle, 'general.architecture')}.attention.causal") == "false":
        return "is an embedding or diffusion model, whose tokens see what follows them"
    return None


def checked_file(name: str) -> Path:
    """The path of a GGUF file. Raises ModelNotFoundError, ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(path.glob("*.gguf"))
        # A model that is split over files is loaded by its first.
        firsts = [file for file in found if not re.search(r"-of-\d+\.gguf$", file.name) or "-00001-of-" in file.name]
        if len(firsts) != 1:
            problem = "holds no GGUF file" if not firsts else f"holds {len(firsts)} GGUF files"
            raise ModelError(f"{path} {problem}. Give the path of the file with --model")
        path = firsts[0]
    if not path.is_file():
        raise ModelNotFoundError(
            f"model file {path} does not exist. Check --model; the llamacpp engine reads GGUF files"
        )
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file. Use --engine transformers for Hugging Face checkpoints")
    return path


def _check_memory(path: Path) -> None:
    """Mapped weights that do not fit make the machine swap, or the process disappear."""
    size, room = gguf_bytes(path), available_memory()
    if room is not None and size > room:
        raise ModelError(
            f"{path.name} has {size / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB of memory are free. "
            "Use a smaller quantization or a machine with more memory"
        )


def uses_gpu(engine: LlamaCpp) -> bool:
    """Whether layers go to a GPU. One that was asked for and is not there is told, and the CPU used."""
    if engine.device == "cpu" or engine.n_gpu_layers == 0:
        return False
    supported = bool(llama_cpp.llama_supports_gpu_offload())
    if engine.device != "auto" and not supported:
        _tell_missing(engine.device)
    return supported


def _tell_missing(device: str) -> None:
    if re.search(REGISTERED[device], llama_cpp.llama_print_system_info()):
        log.warning(
            "llama.cpp is built for %s but finds no such device: the model runs on the CPU. Check the driver, and "
            "what CUDA_VISIBLE_DEVICES lets it see",
            device,
        )
        return
    log.warning(
        "this build of llama.cpp has no %s: the model runs on the CPU. Build llama-cpp-python with "
        'CMAKE_ARGS="-DGGML_%s=on"',
        device,
        device.upper(),
    )


def model_params(engine: LlamaCpp, *, on_gpu: bool) -> Any:
    """llama.cpp's parameters of a model. Raises ConfigError."""
    params = llama_cpp.llama_model_default_params()
    if not on_gpu:
        params.devices = ctypes.cast(NO_DEVICES, ctypes.c_void_p)
    params.n_gpu_layers = 0 if not on_gpu else -1 if engine.n_gpu_layers is None else engine.n_gpu_layers
    params.main_gpu = engine.main_gpu
    params.split_mode = SPLIT_MODES[engine.split_mode]
    params.use_extra_bufts = extra_buffers(engine)
    modes = {
        (False, False): api.LLAMA_LOAD_MODE_NONE,
        (True, False): api.LLAMA_LOAD_MODE_MMAP,
        (False, True): api.LLAMA_LOAD_MODE_MLOCK,
        (True, True): api.LLAMA_LOAD_MODE_MMAP_MLOCK,
    }
    params.load_mode = modes[engine.use_mmap, engine.use_mlock]
    if engine.tensor_split:
        most = llama_cpp.llama_max_devices()
        if len(engine.tensor_split) > most:
            raise ConfigError(
                f"tensor_split has {len(engine.tensor_split)} shares, and llama.cpp at most {most} devices"
            )
        shares = (ctypes.c_float * most)(*engine.tensor_split)
        params.tensor_split = shares
    return params


def extra_buffers(engine: LlamaCpp) -> bool:
    """Whether weights are repacked for the processor. Not where that would choose AMX kernels, which crash."""
    return engine.extra_buffers == "on" or (engine.extra_buffers == "auto" and not has_amx())


def has_amx() -> bool:
    """Whether this build of llama.cpp has AMX kernels and the processor AMX."""
    features: bytes = llama_cpp.llama_print_system_info()
    return re.search(rb"AMX_INT8\s*=\s*1", features) is not None


def metadata(handle: Any, key: str) -> str | None:
    """A value of the GGUF's header as text."""
    buffer = ctypes.create_string_buffer(256)
    length = llama_cpp.llama_model_meta_val_str(handle, key.encode(), buffer, len(buffer))
    return buffer.value.decode(errors="replace") if length >= 0 else None


def description(handle: Any) -> str:
    """The kind of model and of its weights, in llama.cpp's words."""
    buffer = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(handle, buffer, len(buffer))
    return buffer.value.decode(errors="replace")


def is_float32(handle: Any) -> bool:
    """Whether no weights are quantized or of half precision; a file that does not say so is judged by its tensors."""
    return "all F32" in description(handle)


def _cause(said: list[str]) -> str:
    """The most telling line of llama.cpp's log: the first error, without the name of the function."""
    telling = [line for line in said if "failed to load model" not in line] or said or ["it does not say why"]
    return re.sub(r"^[\w:~ ]+?: (error loading model: )?", "", telling[0]).rstrip(".")
