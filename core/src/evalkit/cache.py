"""Where evalkit keeps what it downloads or converts: EVALKIT_CACHE_DIR, else the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """The cache folder, created where it is missing."""
    chosen = os.environ.get("EVALKIT_CACHE_DIR")
    folder = Path(chosen).expanduser() if chosen else user_cache_path("evalkit")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
