"""Open data sets from a local mirror: `<data dir>/<hub id>/<config or "default">/<split>.jsonl[.gz]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.datasets import DatasetSpec
from evalkit.datasets.files import SUFFIXES, read_file
from evalkit.errors import DatasetNotFoundError
from evalkit.hooks import hookimpl


@hookimpl
def open_dataset(dataset: DatasetSpec, split: str, data_dir: str | None) -> Sequence[dict[str, Any]] | None:
    """Documents of a split that the mirror holds."""
    if data_dir is None:
        return None
    if not Path(data_dir).is_dir():
        raise DatasetNotFoundError(f"data folder {data_dir} does not exist. Check --data-dir or EVALKIT_DATA_DIR")
    folder = Path(data_dir) / dataset.path / (dataset.config or "default")
    for suffix in SUFFIXES:
        if (file := folder / f"{split}{suffix}").is_file():
            return read_file(file)
    return None
