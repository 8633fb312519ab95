"""What stands in for a library that needs other hardware."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


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
