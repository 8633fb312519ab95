"""What the end-to-end tests share by import: how to call the command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

FAKE = ("--engine", "evalkit.testing.fake:Fake", "--model", "fake")
Done = subprocess.CompletedProcess[str]
Evalkit = Callable[..., Done]


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without evalkit's own variables."""
    own = {key for key in os.environ if key.startswith("EVALKIT_") and key != "EVALKIT_CACHE_DIR"}
    kept = {key: value for key, value in os.environ.items() if key not in own}
    return {**kept, "COLUMNS": "100", **more}
