"""A llama.cpp context: sequences that share cells of one cache, and passes whose logits are asked for by token."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as api
from numpy.typing import NDArray

from evalkit.errors import ModelError, OutOfMemoryError
from evalkit_llamacpp import logs
from evalkit_llamacpp.engine import LlamaCpp

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float32]

MOST_SEQUENCES = 256
MOST_LOGITS = 256
"""Logits of one pass, in tokens."""
FLASH = {
    "auto": api.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": api.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": api.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
ROPE = {
    "none": api.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": api.LLAMA_ROPE_SCALING_TYPE_LINEAR,
    "yarn": api.LLAMA_ROPE_SCALING_TYPE_YARN,
    "longrope": api.LLAMA_ROPE_SCALING_TYPE_LONGROPE,
}
BF16 = 30
"""ggml's number of the type, which llama-cpp-python does not name."""
ROTARY = (
    "rope_freq_base",
    "rope_freq_scale",
    "yarn_orig_ctx",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
)
"""Options that llama.cpp knows by the same names; it takes the model's own where they are left out."""


class Context:
    """Room for `cells` tokens of `sequences`, until `close`. `exact` means float32 where options leave it open."""

    def __init__(
        self,
        handle: Any,
        engine: LlamaCpp,
        cells: int,
        *,
        exact: bool,
        on_gpu: bool,
        sequences: int = MOST_SEQUENCES,
    ) -> None:
        self.cells, self.sequences = cells, sequences
        self.vocabulary: int = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(handle))
        params = context_params(engine, cells, sequences, exact=exact, on_gpu=on_gpu)
        with logs.listening() as said:
            self._context = llama_cpp.llama_init_from_model(handle, params)
        if not self._context:
            cause = said[0] if said else "it does not say why"
            problem = f"llama.cpp cannot make a context of {cells} tokens: {cause}"
            if any("alloc" in line or "memory" in line for line in said):
                raise OutOfMemoryError(problem)
            raise ModelError(f"{problem}. Check the engine's options")
        self._memory = llama_cpp.llama_get_memory(self._context)

    def copy(self, sequence: int, to: int, end: int) -> None:
        """Let another, empty sequence share the first `end` tokens of one."""
        llama_cpp.llama_memory_seq_cp(self._memory, sequence, to, 0, end)

    def cut(self, sequence: int, begin: int = 0) -> None:
        """Forget a sequence's tokens from position `begin` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, begin, -1)

    def keep_only(self, sequence: int) -> None:
        """Forget all other sequences."""
        llama_cpp.llama_memory_seq_keep(self._memory, sequence)

    def clear(self) -> None:
        """Forget all sequences."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def decode(self, tokens: Ints, positions: Ints, owners: Ints, counts: Ints, wanted: NDArray[np.bool_]) -> Floats:
        """One pass. Token i belongs to `counts[i]` sequences, named in `owners` one token after another.

        Logits [tokens wanted, vocabulary], valid until the next pass. Raises OutOfMemoryError where cells run out.
        """
        flags = wanted.astype(np.int8)
        tokens, positions, owners, counts = (
            np.ascontiguousarray(side, np.int32) for side in (tokens, positions, owners, counts)
        )
        # An array of pointers into `owners`, one a token.
        pointers = owners.ctypes.data + (np.cumsum(counts, dtype=np.uint64) - counts.astype(np.uint64)) * np.uint64(4)
        batch = llama_cpp.llama_batch(
            n_tokens=len(tokens),
            token=_pointer(tokens, ctypes.c_int32),
            embd=None,
            pos=_pointer(positions, ctypes.c_int32),
            n_seq_id=_pointer(counts, ctypes.c_int32),
            seq_id=ctypes.cast(pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=_pointer(flags, ctypes.c_int8),
        )
        with logs.listening() as said:
            status = llama_cpp.llama_decode(self._context, batch)
        if status:
            problem = f"llama.cpp failed on {len(tokens)} tokens (status {status}: {' '.join(said[:1])})"
            raise OutOfMemoryError(problem) if status in (1, -2) else ModelError(problem)
        if not wanted.any():
            return np.empty((0, self.vocabulary), np.float32)
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(int(wanted.sum()), self.vocabulary))

    def close(self) -> None:
        """Give the memory back. Closing twice does nothing."""
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context = None


def flash_attention(engine: LlamaCpp, exact: bool) -> str:
    """Whether it is used: on, off, or auto, which leaves it to llama.cpp. It computes in float16."""
    return "off" if engine.flash_attn == "auto" and exact else engine.flash_attn


def cache_type(name: str) -> int:
    """The number that ggml has for a type."""
    number: int = BF16 if name == "bf16" else getattr(api, f"GGML_TYPE_{name.upper()}")
    return number


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def context_params(engine: LlamaCpp, cells: int, sequences: int, *, exact: bool, on_gpu: bool) -> Any:
    """llama.cpp's parameters of a context."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = cells
    params.n_batch, params.n_ubatch = engine.n_batch, min(engine.n_ubatch, engine.n_batch)
    # As many logits as sequences at least: llama.cpp aborts where they are fewer.
    params.n_seq_max, params.n_outputs_max = sequences, MOST_LOGITS
    # Sequences share cells, and a sliding window must not drop what other branches still need.
    params.kv_unified = params.swa_full = True
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    params.n_threads = engine.n_threads or cores
    params.n_threads_batch = engine.n_threads_batch or engine.n_threads or cores
    params.flash_attn_type = FLASH[flash_attention(engine, exact)]
    params.offload_kqv = engine.offload_kqv
    # Else large products of matrices would go to a GPU although no layer is there.
    params.op_offload = on_gpu
    usual = "f32" if exact else "f16"
    for side in ("type_k", "type_v"):
        name = getattr(engine, side)
        setattr(params, side, cache_type(usual if name == "auto" else name))
    if engine.rope_scaling is not None:
        params.rope_scaling_type = ROPE[engine.rope_scaling]
    for name in ROTARY:
        if getattr(engine, name) is not None:
            setattr(params, name, getattr(engine, name))
    return params
