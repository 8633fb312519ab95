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
    kept = {key: value for key, value in os.environ.items() if not key.startswith("EVALKIT_") or key.endswith("CACHE_DIR")}
    return {**kept, "COLUMNS": "100", **more}
