"""Write results.json and samples_<task>.jsonl, readable by tools made for lm-evaluation-harness."""

from __future__ import annotations

import json
from typing import Any

from evalkit.engine import redact
from evalkit.hooks import hookimpl
from evalkit.results import RunResult, Sample
from evalkit.runs.context import RunContext
from evalkit.runs.folder import RESULTS
from evalkit.runs.samples import PREFIX, describe_files, sample_name

ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=str)


@hookimpl
def sample_scored(run: RunContext, sample: Sample) -> None:
    """Add the sample to its task's file."""
    run.folder.append_line(sample_name(sample.task), ENCODER.encode(sample.to_dict()))


@hookimpl
def run_finished(run: RunContext, result: RunResult) -> None:
    """Write the results, and let the sample files appear."""
    files = run.folder.commit()
    samples = {name: path for name, path in files.items() if name.startswith(PREFIX)}
    run.folder.write_json(RESULTS, {**results_document(run, result), "sample_files": describe_files(samples)})


def results_document(run: RunContext, result: RunResult) -> dict[str, Any]:
    """The content of results.json: what `--json` prints, and the harness's own keys beside it."""
    model_args = [f"pretrained={redact(run.spec.model)}", *(f"{k}={v}" for k, v in redact(run.spec.model_args).items())]
    return {
        **result.to_dict(),
        **result.details,
        "versions": {name: task.version for name, task in run.tasks.items()},
        "n-shot": dict(run.shots),
        "warnings": list(result.warnings),
        "config": {
            "model": run.spec.engine,
            "model_args": ",".join(model_args),
            "batch_size": run.spec.batch_size,
            "limit": run.spec.limit,
            "fewshot_seed": run.spec.seed,
        },
        "model_name": redact(run.spec.model),
        "engine": dict(run.engine),
    }
