"""Finished runs as their readers see them: run.json, results.json and where the samples are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import RunError
from evalkit.runs.folder import RunFolder
from evalkit.runs.samples import check_samples, sample_files


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run; `label` tells it from the others beside it."""

    label: str
    path: Path
    manifest: dict[str, Any]
    results: dict[str, Any]

    @property
    def sample_files(self) -> dict[str, Path]:
        """The sample file of every task, by task."""
        files = sample_files(self.path)
        known = [task for task in self.results.get("versions", {}) if task in files]
        return {task: files[task] for task in dict.fromkeys([*known, *files])}

    @property
    def higher_is_better(self) -> dict[str, dict[str, bool]]:
        """By task and metric."""
        found: dict[str, dict[str, bool]] = self.results.get("higher_is_better", {})
        return found


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """Finished runs. Raises RunError where one is not finished, damaged, or named twice."""
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise RunError("a run is named twice. Name each run once")
    names = [path.name for path in resolved]
    labels = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    return [open_run(path, label) for path, label in zip(paths, labels, strict=True)]


def open_run(path: Path, label: str, *, with_samples: bool = True) -> Run:
    """A finished run. Raises RunError; `with_samples` also where a sample file is missing or cut."""
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    results = folder.results()
    if not isinstance(manifest.get("spec"), dict):
        raise RunError(f"run {path} lacks its spec, perhaps written by another program. Start the run again")
    if with_samples:
        check_samples(path, results, results.get("versions", ()))
    return Run(label, path, manifest, results)


def tasks_of(runs: Sequence[Run]) -> list[str]:
    """Tasks that have samples in any of the runs."""
    return list(dict.fromkeys(task for run in runs for task in run.sample_files))
