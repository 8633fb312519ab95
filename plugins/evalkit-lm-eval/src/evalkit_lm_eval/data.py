"""Documents for lm-evaluation-harness from evalkit's sources: the mirror of --data-dir first, then the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import datasets

from evalkit.datasets import DatasetSpec, load_split
from evalkit.errors import DatasetNotFoundError, one_line
from evalkit.hub import hub_is_reachable
from evalkit.plugins import get_plugins

HUB = "evalkit.datasets.hub"
HARMLESS = frozenset({"cache_dir", "download_mode", "trust_remote_code", "token", "num_proc", "verification_mode"})
"""Arguments of `load_dataset` that do not change which documents there are."""

_load_dataset: Callable[..., Any] = datasets.load_dataset
_active: ContextVar[Source | None] = ContextVar("lm_eval_source", default=None)


@dataclass(frozen=True)
class Source:
    """Where documents come from while the harness builds a task."""

    data_dir: str | None
    needed: str | None = None
    """The only split that must be there; without it, all must."""

    def local(self, dataset: DatasetSpec, split: str) -> datasets.Dataset | None:
        """A split that a mirror, listed files or another plugin has."""
        manager = get_plugins().pm
        # The hub is left to the harness's own call, which keeps types that plain rows lose (class labels, images).
        ask = manager.subset_hook_caller("open_dataset", remove_plugins=[manager.get_plugin(HUB)])
        rows = ask(dataset=dataset, split=split, data_dir=self.data_dir)
        return None if rows is None else _table(rows)

    def remote(self, dataset: DatasetSpec, split: str) -> datasets.Dataset:
        """A split as evalkit gets it from the hub. Raises DataError."""
        token = _active.set(None)
        try:
            return _table(load_split(dataset, split, self.data_dir))
        except DatasetNotFoundError:
            if self.needed in (None, split):
                raise
            return _table([])
        finally:
            _active.reset(token)


class Splits(Mapping[str, Any]):
    """A data set whose splits are read when they are asked for; the hub is asked for what is nowhere else."""

    def __init__(self, source: Source, dataset: DatasetSpec, options: dict[str, Any]) -> None:
        self.source = source
        self.dataset = dataset
        self.options = options
        self._found: dict[str, Any] = {}

    def __getitem__(self, split: str) -> Any:
        if split not in self._found:
            found = self.source.local(self.dataset, split)
            self._found[split] = self._from_hub(split) if found is None else found
        return self._found[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __getattr__(self, name: str) -> Any:
        # `map`, `filter`, `rename_column` and the like: they want all splits.
        return getattr(self._all(), name)

    def _from_hub(self, split: str) -> Any:
        hub_is_reachable()  # without it, the library would retry for minutes
        try:
            return _load_dataset(self.dataset.path, self.dataset.config, split=split, **self.options)
        except Exception:  # the library raises many kinds; evalkit's own way to the hub says what is wrong
            return self.source.remote(self.dataset, split)

    def _all(self) -> Any:
        hub_is_reachable()
        try:
            return _load_dataset(self.dataset.path, self.dataset.config, **self.options)
        except Exception as error:
            raise DatasetNotFoundError(
                f"data set {self.dataset.label!r}: its splits cannot be listed ({one_line(error, 160)}), and this task "
                "wants all of them. Check the network"
            ) from error


def _table(rows: Iterable[Mapping[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list([dict(row) for row in rows])


def described(path: str, name: str | None, options: Mapping[str, Any]) -> DatasetSpec:
    """The data set that these arguments of `load_dataset` mean, with the files of its repository that they pick."""
    return DatasetSpec(path, name, options.get("revision"), hub_files=_picked(path, options))


def _picked(path: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Builders such as "json" hold what each task's files say: under their names, a mirror cannot tell tasks apart."""
    files: Any = options.get("data_files")
    is_plain = isinstance(files, Mapping) and all(isinstance(name, str) for name in files.values())
    return dict(files) if is_plain and "/" in path else {}


def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
    """Stands in for `datasets.load_dataset`; the real function wherever evalkit's sources cannot serve."""
    source, split = _active.get(), options.pop("split", None)
    known = {*HARMLESS, "revision"} | ({"data_files"} if _picked(path, options) else set())
    plain = all(value is None for key, value in options.items() if key not in known)
    if source is None or not plain or (split is not None and not str(split).replace("_", "").isalnum()):
        return _load_dataset(path, name, **({"split": split} if split is not None else {}), **options)
    dataset = described(path, name, options)
    splits = Splits(source, dataset, {key: value for key, value in options.items() if value is not None})
    return splits if split is None else splits[str(split)]


@contextmanager
def documents_from(data_dir: str | None, needed: str | None = None) -> Iterator[None]:
    """While this lasts, the harness's tasks read their documents through evalkit.

    Other splits than the `needed` one are empty where they cannot be found; by default all are needed.
    """
    token = _active.set(Source(data_dir, needed))
    # Modules of tasks may keep the function for good: outside of this block it is the real one.
    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = _load_dataset
        _active.reset(token)
