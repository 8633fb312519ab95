"""The files that a GGUF model is split into, and how large they are together."""

from __future__ import annotations

import re
from pathlib import Path


def gguf_parts(path: Path) -> list[Path]:
    """All files of a model, of which `path` is the first or the only one."""
    found = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path.name)
    if found is None:
        return [path]
    stem, total = found.groups()
    return [path.with_name(f"{stem}-{number:05d}-of-{total}.gguf") for number in range(1, int(total) + 1)]


def gguf_bytes(path: Path) -> int:
    """Bytes of all files of a model; those that are missing are the loader's to name."""
    return sum(part.stat().st_size for part in gguf_parts(path) if part.is_file())
