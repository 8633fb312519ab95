"""One error where memory runs out, whatever the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evalkit.memory import memory_errors


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Passes without gradients; a failed allocation is an OutOfMemoryError."""
    with memory_errors(device, torch.cuda.empty_cache), torch.inference_mode():
        yield
