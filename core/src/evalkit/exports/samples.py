"""Read the samples of a finished run, one at a time: a run may hold more than memory does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, did_you_mean
from evalkit.reading.finished import Run, open_run
from evalkit.runs.folder import ESCAPED
from evalkit.runs.samples import Row, check_samples, sample_path, sample_rows

BEFORE = ("task", "doc_id", "filter")
AFTER = ("target", "prompt", "response", "error")
"""The columns of a flat row; its metrics stand between them."""


@dataclass(frozen=True, slots=True)
class Source:
    """A finished run, and the tasks of it that are exported."""

    run: Run
    tasks: tuple[str, ...]

    @property
    def manifest(self) -> Row:
        """Its run.json."""
        return self.run.manifest

    @property
    def results(self) -> Row:
        """Its results.json."""
        return self.run.results

    @classmethod
    def open(cls, path: Path, task: str | None = None) -> Source:
        """The run in the folder `path`. Raises RunError where it is not finished, ConfigError for another task."""
        run = open_run(path, str(path), with_samples=False)
        known = tuple(run.results.get("n-samples", run.results["results"]))
        if task is not None and task not in known:
            raise ConfigError(f"{path} has no task {task!r}.{did_you_mean(task, known)} See: evalkit show {path}")
        tasks = known if task is None else (task,)
        check_samples(path, run.results, tasks)
        return cls(run, tasks)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Each task's name with each row of its sample file, in order. Raises RunError where one is damaged."""
        for task in self.tasks:
            for row in sample_rows(sample_path(self.run.path, task)):
                yield task, row

    def flat(self) -> Iterator[Row]:
        """Each sample as one row of plain values: numbers, texts and None."""
        return (flat(task, row) for task, row in self.rows())

    def metrics(self) -> dict[str, bool]:
        """The metrics of any sample, each with whether all its values are numbers."""
        found: dict[str, bool] = {}
        for _, row in self.rows():
            for name in row["metrics"]:
                found[name] = found.get(name, True) and isinstance(row[name], (int, float))
        return found


def column(metric: str) -> str:
    """The column of a metric: its name, unless another column has it."""
    return f"metric_{metric}" if metric in (*BEFORE, *AFTER) else metric


def flat(task: str, row: Row) -> Row:
    """One row of a sample file as plain values; what is neither a text nor a number becomes JSON."""
    values = {column(name): plain(row[name]) for name in row["metrics"]}
    return {
        "task": task,
        "doc_id": row["doc_id"],
        "filter": row["filter"],
        **values,
        "target": as_text(row["target"]),
        "prompt": prompt(row),
        "response": response(row),
        "error": as_text(row.get("error")),
    }


def prompt(row: Row) -> str | None:
    """What was asked: one text, or the JSON of several where the requests of a document differ in it."""
    asked = list(dict.fromkeys(as_text(arguments[0]) for arguments in row["arguments"]))
    return asked[0] if len(asked) == 1 else as_text(asked or None)


def response(row: Row) -> str | None:
    """What came back: a generated text, or JSON: several texts, or each continuation with its log-probability."""
    if not row["arguments"]:
        return None
    answers = [found[0] for found in row["resps"]]
    if all(isinstance(answer, list) for answer in answers):
        texts = (arguments[1] for arguments in row["arguments"])
        return as_text([[text, answer[0]] for text, answer in zip(texts, answers, strict=True)])
    return as_text(answers[0] if len(answers) == 1 else answers)


def plain(value: Any) -> float | str | None:
    """A number as a float (True is 1), anything else as text."""
    return float(value) if isinstance(value, (int, float)) else as_text(value)


def as_text(value: Any) -> str | None:
    """A text as UTF-8 can hold it, other values as JSON, None as it is."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors=ESCAPED).decode()
