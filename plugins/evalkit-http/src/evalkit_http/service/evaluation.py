"""The job `evaluate`: an `evalkit run` from a spec file, or an `evalkit resume` where its run folder is there."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import yaml

from evalkit.errors import RunError
from evalkit.runs.folder import MANIFEST, RESULTS, RunFolder
from evalkit.runs.journal import count_answers
from evalkit.runs.samples import sample_path
from evalkit_http.service.job import Job
from evalkit_http.service.kinds import Outcome
from evalkit_http.service.protocol import JobStatus, Progress

SPEC, RUN = "spec.yaml", "run"
LEFT_OUT = ("run_dir", "engine")


class Evaluation:
    """Jobs whose `work` holds the fields of a run under "spec"."""

    def words(self, job: Job, folder: Path) -> list[str]:
        """Begin the run, or complete it."""
        run = run_folder(job, folder)
        if (run / MANIFEST).is_file():
            return ["resume", str(run)]
        # What was killed before it wrote its first file left a lock there at most.
        shutil.rmtree(run, ignore_errors=True)
        spec = folder / SPEC
        # Written by the library that reads it: JSON's way to write 1e-05 or an emoji is another one.
        spec.write_text(yaml.safe_dump(job.work["spec"], sort_keys=False), encoding="utf-8")
        return ["run", "--config", str(spec), "--output", str(run)]

    def outcome(self, job: Job, folder: Path) -> Outcome | None:
        """The scores, once the run says that it is finished. Failed requests are told beside them."""
        run = run_folder(job, folder)
        try:
            opened = RunFolder.open(run)
            if opened.manifest().get("status") != "finished":
                return None
            results = opened.read_json(RESULTS)
        except RunError:
            return None
        if not job.request.get("log_samples", True):
            _drop_samples(run)
        return _outcome({name: _finite(value) for name, value in results.items() if name not in LEFT_OUT})

    def progress(self, job: Job, folder: Path) -> Progress | None:
        """Answers in the run's journal."""
        run = run_folder(job, folder)
        try:
            total = RunFolder.open(run).manifest().get("requests", 0)
        except RunError:
            return None
        return Progress(answered=min(count_answers(run / "journal.sqlite"), total), total=total)


def run_folder(job: Job, folder: Path) -> Path:
    """Where a job's run is."""
    given = job.work.get("output_dir")
    return Path(given) / f"{folder.name}" if given else folder / RUN


def samples_file(job: Job, folder: Path, task: str) -> Path | None:
    """The samples of a task; None where the job has none of that name."""
    run = run_folder(job, folder)
    path = sample_path(run, task)
    try:
        return path if path.parent == run and path.is_file() else None
    except (OSError, ValueError):  # no file has such a name
        return None


def _drop_samples(run: Path) -> None:
    for path in run.glob("samples_*.jsonl"):
        path.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    """A copy in which None stands for what JSON has no number for, an infinite perplexity, say."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _outcome(results: dict[str, Any]) -> Outcome:
    errors, unusable = results.get("errors", 0), results.get("unusable_documents", 0)
    said = [f"{errors} requests failed"] * bool(errors) + [f"{unusable} documents cannot be used"] * bool(unusable)
    remark = f"{' and '.join(said)}; they are not scored. See the result's warnings" if said else None
    scored = any(row for row in results.get("results", {}).values())
    if not scored:
        return Outcome(JobStatus.FAILED, error=f"nothing was scored: {remark or 'see the job log'}")
    return Outcome(JobStatus.COMPLETED, results, remark)
