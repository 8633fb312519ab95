"""What makes finished runs comparable: the same task versions, documents and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evalkit.errors import RunError
from evalkit.runs.folder import RunFolder
from evalkit.runs.samples import TaskSamples, check_samples, read_samples, sample_path

SHOWN_NAMES = 3


@dataclass(frozen=True)
class Scored:
    """A finished run, by the name it was given."""

    name: str
    path: Path

    @cached_property
    def results(self) -> dict[str, Any]:
        """Its results.json. Raises RunError where the run is not finished."""
        folder = RunFolder.open(self.path)
        if folder.manifest().get("status") != "finished":
            raise RunError(f"run {self.name} is not finished. Complete it with: evalkit resume {self.path}")
        return folder.results()

    @property
    def tasks(self) -> Mapping[str, str]:
        """Versions of its tasks, by name."""
        versions: dict[str, str] = self.results.get("versions", {})
        return versions

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """The tasks of each group that has numbers."""
        found: dict[str, list[str]] = self.results.get("group_subtasks", {})
        return {name: tasks for name, tasks in found.items() if self.metrics_of(name)}

    @property
    def weighted(self) -> Mapping[str, bool]:
        """Of each group, whether tasks count by their documents; what an older version wrote does not say."""
        found: dict[str, bool] = self.results.get("group_weighted", {})
        return found

    def metrics_of(self, group: str) -> list[str]:
        """What a group has numbers of, as "metric,filter"."""
        return [key for key in self.results["results"].get(group, {}) if "_stderr," not in key]

    def samples(self, task: str) -> TaskSamples:
        """What it scored. Raises RunError where the file is missing or damaged."""
        check_samples(self.path, self.results, [task])
        return read_samples(sample_path(self.path, task))


def check_tasks(baseline: Scored, other: Scored, *, strict: bool) -> list[str]:
    """What is left out because only one run has it. Raises RunError for other versions, or if `strict` for gaps."""
    shared = [task for task in baseline.tasks if task in other.tasks]
    missing = [task for task in baseline.tasks if task not in other.tasks]
    if not shared or (strict and missing):
        raise RunError(
            f"run {other.name} lacks {_names(missing)} of {baseline.name}. Run the same tasks on both, then compare"
        )
    for task in shared:
        if baseline.tasks[task] != other.tasks[task]:
            raise RunError(
                f"task {task} is version {baseline.tasks[task]} in {baseline.name} and {other.tasks[task]} in "
                f"{other.name}: their scores are not comparable. Run the older one again"
            )
    added = [task for task in other.tasks if task not in baseline.tasks]
    pairs = ((other.name, missing), (baseline.name, added))
    return [f"{_names(tasks)} not compared: not in {name}" for name, tasks in pairs if tasks]


def _names(tasks: Sequence[str]) -> str:
    more = f" and {len(tasks) - SHOWN_NAMES} more" if len(tasks) > SHOWN_NAMES else ""
    return ", ".join(tasks[:SHOWN_NAMES]) + more


def check_documents(
    task: str, before: tuple[Scored, TaskSamples], after: tuple[Scored, TaskSamples], *, any_prompts: bool
) -> None:
    """Raise RunError where a task was asked about other documents or, unless `any_prompts`, with other prompts."""
    (baseline, old), (other, new) = before, after
    if old.documents == new.documents:
        return
    if old.documents.keys() != new.documents.keys():
        raise RunError(
            f"task {task} has {len(old.documents)} documents in {baseline.name} and {len(new.documents)} in "
            f"{other.name}. Run both with the same --limit"
        )
    for doc_id, document in old.documents.items():
        if document.doc_hash != new.documents[doc_id].doc_hash:
            raise RunError(
                f"task {task}: document {doc_id} is another one in {other.name} than in {baseline.name}. "
                "Run both on the same data"
            )
        if document.prompt_hash != new.documents[doc_id].prompt_hash and not any_prompts:
            raise RunError(
                f"task {task}: the prompt of document {doc_id} is another one in {other.name} than in {baseline.name} "
                "(examples, chat template, generation options). Run both alike, or give --any-prompts"
            )
