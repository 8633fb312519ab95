"""Open data sets from the Hugging Face hub, through the `datasets` library where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.datasets import DatasetSpec
from evalkit.errors import DatasetNotFoundError, one_line
from evalkit.hooks import hookimpl
from evalkit.hub import hub_is_reachable


@hookimpl(trylast=True)
def open_dataset(dataset: DatasetSpec, split: str, data_dir: str | None) -> Sequence[dict[str, Any]] | None:
    """Documents downloaded from the hub, or from the `datasets` library's own cache."""
    where = f"not in the mirror {data_dir}" if data_dir else "no mirror was given with --data-dir"
    label = f"data set {dataset.label!r}, split {split!r}"
    reachable = hub_is_reachable()
    try:
        import datasets
    except ImportError as error:
        raise DatasetNotFoundError(
            f"{label}: {where}, and downloading needs the datasets library. "
            "Give a mirror with --data-dir, or: pip install 'evalkit-core[hub]'"
        ) from error
    try:
        table = datasets.load_dataset(dataset.path, dataset.config, split=split, revision=dataset.revision)
    except Exception as error:  # the library raises many kinds: network, unknown id, gated, broken cache
        cause = "did not give it" if reachable else "cannot be reached"
        raise DatasetNotFoundError(
            f"{label}: {where}, and the hub {cause} ({type(error).__name__}: {one_line(error, 160)}). "
            "Check the network, or give a mirror with --data-dir"
        ) from error
    return [dict(row) for row in table]
