"""Where evalkit keeps what it downloads or converts: EVALKIT_CACHE_DIR, else the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from evalkit.errors import ConfigError, one_line


def cache_dir() -> Path:
    """The cache folder, created where it is missing. Raises ConfigError where that cannot be done."""
    chosen = os.environ.get("EVALKIT_CACHE_DIR")
    folder = Path(chosen).expanduser() if chosen else user_cache_path("evalkit")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the cache folder {folder} cannot be made ({one_line(error)}). Set EVALKIT_CACHE_DIR to another one"
        ) from error
    return folder
