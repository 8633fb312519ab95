"""Registered models for tests."""

from __future__ import annotations

import pytest

from evalkit.errors import ModelNotFoundError
from evalkit.plugins import get_plugins
from evalkit.specs import load_object


def registered_model(name: str, file_format: str) -> str:
    """The local path of a registered model; skips the test where nothing provides it, or it cannot be fetched."""
    models = get_plugins().models
    if name not in models.owners:
        pytest.skip(f"needs a package that registers the model {name}")
    try:
        path: str = load_object(models.get(name).formats[file_format])()
    except ModelNotFoundError as error:
        pytest.skip(f"needs the model: {error}")
    return path
