"""Memory: one error where it runs out, whatever the device; what a CPU keeps between passes."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager
from typing import Any

import torch

from evalkit import memory


def memory_errors(device: torch.device) -> AbstractContextManager[None]:
    """Turn a failed allocation, on any device, into OutOfMemoryError."""
    return memory.memory_errors(device, torch.cuda.empty_cache)


# The parameters' numbers in glibc's malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let the C library keep what a pass frees for the next one, instead of giving it back to the system.

    By default every activation above some size is mapped anew, and its pages are cleared one fault at a time: for
    a model of 135M parameters that is a third of a pass. Does nothing where the C library is not glibc.
    """
    if (mallopt := _glibc("mallopt")) is not None:
        mallopt(MMAP_THRESHOLD, 32 * MIB)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 64 * MIB)


def return_freed_memory() -> None:
    """Give the system back what `keep_freed_memory` kept."""
    if (malloc_trim := _glibc("malloc_trim")) is not None:
        malloc_trim(0)


SHAPE_STEP, SMALL = 64, 512


def padding(count: int, device: torch.device) -> int:
    """Rows to add to many rows on a CPU, so that their number is one of few.

    oneDNN keeps code for every shape that it has met, half a MiB and more a matrix: batches of many sizes would cost
    as much as the model.
    """
    return -count % SHAPE_STEP if count >= SMALL and device.type == "cpu" else 0


FEW, FEW_STEP = 8, 4


def step_padding(count: int, device: torch.device) -> int:
    """Tokens to add to a step of generation, for the reason of `padding`: sequences end one by one."""
    return -count % FEW_STEP if count > FEW and device.type == "cpu" else 0


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
