"""One error for memory that ran out, whatever the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evalkit.errors import OutOfMemoryError


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn a failed allocation, on any device, into OutOfMemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemoryError(f"no memory left on {device}") from error
    except (RuntimeError, MemoryError) as error:
        # The CPU and MPS allocators raise a plain RuntimeError.
        if isinstance(error, MemoryError) or "allocate" in str(error) or "out of memory" in str(error):
            raise OutOfMemoryError(f"no memory left on {device}") from error
        raise
