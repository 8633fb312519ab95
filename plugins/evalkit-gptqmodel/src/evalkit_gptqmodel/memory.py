"""One error where memory runs out, whatever the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evalkit.errors import OutOfMemoryError


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Passes without gradients; a failed allocation is an OutOfMemoryError."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemoryError(f"no memory left on {device}") from error
    except (RuntimeError, MemoryError) as error:
        # The CPU's allocator raises a plain RuntimeError.
        if isinstance(error, MemoryError) or "allocate" in str(error) or "out of memory" in str(error):
            raise OutOfMemoryError(f"no memory left on {device}") from error
        raise
