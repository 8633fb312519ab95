"""Open data sets from the Hugging Face hub, through the `datasets` library where it is installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from evalkit.datasets import DatasetSpec
from evalkit.errors import DatasetNotFoundError, one_line
from evalkit.hooks import hookimpl
from evalkit.hub import hub_is_reachable

CONVERTED = "refs/convert/parquet"
"""The branch where the hub keeps Parquet copies of data sets that are programs, which `datasets` runs no more."""

GATED = re.compile(r"\bgated (dataset|repo)", re.IGNORECASE)


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
        table = _load(datasets, dataset, split)
    except Exception as error:  # the library raises many kinds: network, unknown id, gated, broken cache
        if _is_gated(error):
            raise DatasetNotFoundError(_gated(label, dataset)) from error
        cause = "did not give it" if reachable else "cannot be reached"
        raise DatasetNotFoundError(
            f"{label}: {where}, and the hub {cause} ({type(error).__name__}: {one_line(error, 160)}). "
            "Check the network, or give a mirror with --data-dir"
        ) from error
    return [dict(row) for row in table]


def _load(datasets: Any, dataset: DatasetSpec, split: str) -> Any:
    if dataset.hub_files:
        # The hub's own description counts the whole data set: its checks would find the rest missing.
        options = {"data_files": dict(dataset.hub_files), "verification_mode": "no_checks"}
        return datasets.load_dataset(dataset.path, split=split, revision=dataset.revision, **options)
    try:
        return datasets.load_dataset(dataset.path, dataset.config, split=split, revision=dataset.revision)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return datasets.load_dataset(dataset.path, dataset.config, split=split, revision=CONVERTED)


def _is_gated(error: BaseException) -> bool:
    """Whether consent is what is missing; a data set may well be named "aggregated"."""
    cause = error.__cause__ or error.__context__
    if type(error).__name__ == "GatedRepoError" or GATED.search(str(error)):
        return True
    return cause is not None and _is_gated(cause)


def _gated(label: str, dataset: DatasetSpec) -> str:
    return (
        f"{label}: its owner asks for consent. Give it at https://huggingface.co/datasets/{dataset.path}, "
        "then log in with: hf auth login (or set HF_TOKEN)"
    )


def current_revision(dataset: DatasetSpec) -> str | None:
    """The commit of a data set that the hub gives now; None where the hub cannot say."""
    if not hub_is_reachable():
        return dataset.revision
    try:
        from huggingface_hub import HfApi

        found: str | None = HfApi().dataset_info(dataset.path, revision=dataset.revision).sha
    except Exception:  # only for the record: whatever is wrong shows when the documents are loaded
        return dataset.revision
    return found
