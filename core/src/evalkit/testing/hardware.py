"""Libraries that need hardware: whether it is here, and what stands in for them where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


def has_gpu() -> bool:
    """Whether PyTorch sees a GPU."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return bool(torch.cuda.is_available())


@contextmanager
def stand_in(library: str, folder: Path) -> Iterator[None]:
    """`folder` holds what `import library` finds meanwhile."""
    kept = _forget(library)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget(library)
        sys.modules.update(kept)


def _forget(library: str) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == library}
