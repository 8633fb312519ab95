"""Samples as an eval log of Inspect, in its JSON format: `inspect view` and `read_eval_log` read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from evalkit.exports.samples import Source, as_text, prompt
from evalkit.runs.folder import ESCAPED
from evalkit.runs.samples import Row

LOG_VERSION = 2


def write(source: Source, path: Path) -> int:
    """One eval log with a sample a document; its scores are the metrics under each filter."""
    (task,) = source.tasks
    model = source.results["model_name"]
    rows = (row for _, row in source.rows())
    samples = (sample(list(group), model) for _, group in groupby(rows, key=itemgetter("doc_id")))
    count = 0
    with path.open("w", encoding="utf-8", errors=ESCAPED, newline="\n") as file:
        # The samples come last, one at a time: a log may hold more of them than memory does.
        file.write(json.dumps(header(source, task), ensure_ascii=False)[:-1] + ', "samples": [')
        for count, value in enumerate(samples, start=1):
            file.write(("\n" if count == 1 else ",\n") + json.dumps(value, ensure_ascii=False))
        file.write("\n]}\n")
    return count


def header(source: Source, task: str) -> dict[str, Any]:
    """All of a log but its samples."""
    manifest, results = source.manifest, source.results
    spec, created = manifest.get("spec", {}), manifest.get("created", "")
    sizes = results["n-samples"][task]
    identity = hashlib.sha256(f"{manifest.get('id')} {created} {results['run_dir']} {task}".encode()).hexdigest()[:22]
    last = manifest["attempts"][-1] if manifest.get("attempts") else {}
    return {
        "version": LOG_VERSION,
        "status": "success",
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "task_id": identity,
            "created": created,
            "task": task,
            "task_version": results["versions"][task],
            "dataset": {"name": task, "samples": sizes["effective"], "shuffled": False},
            "model": results["model_name"],
            "model_args": spec.get("model_args", {}),
            "config": {"limit": spec.get("limit")},
            "packages": last.get("packages", {}),
            "metadata": {"engine": results["engine"], "num_fewshot": results["n-shot"][task], "made_by": "evalkit"},
        },
        "results": {
            "total_samples": sizes["effective"],
            "completed_samples": sizes["effective"],
            "scores": list(_scores(results["results"][task])),
        },
        "stats": {"started_at": last.get("started", ""), "completed_at": ""},
    }


def sample(rows: list[Row], model: str) -> dict[str, Any]:
    """A document under all its filters as one sample."""
    row = rows[0]
    texts = [arguments[1] for arguments in row["arguments"] if len(arguments) > 1 and isinstance(arguments[1], str)]
    answer = _answer(row, texts)
    error = row.get("error")
    return {
        # Inspect counts from 1.
        "id": row["doc_id"] + 1,
        "epoch": 1,
        "input": prompt(row) or "",
        **({"choices": texts} if texts else {}),
        "target": as_text(row["target"]) or "",
        "output": {"model": model, "choices": [_choice(answer)], "completion": answer},
        "scores": {
            _label(name, one["filter"]): {"value": one[name], "answer": answer if texts else _taken(one)}
            for one in rows
            for name in one["metrics"]
        },
        "metadata": {"doc": row["doc"], "responses": row["resps"]},
        **({"error": {"message": error, "traceback": "", "traceback_ansi": ""}} if error else {}),
    }


def _answer(row: Row, texts: list[str]) -> str:
    """The generated text, or the continuation with the highest log-probability."""
    answers = [found[0] for found in row["resps"]]
    if texts and answers:
        best = max(range(len(answers)), key=lambda index: answers[index][0])
        return texts[best]
    return as_text(answers[0]) or "" if answers else ""


def _choice(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "stop_reason": "stop"}


def _taken(row: Row) -> str | None:
    """What the filter made of the answer."""
    filtered = row["filtered_resps"]
    return as_text(filtered[0] if isinstance(filtered, list) and len(filtered) == 1 else filtered)


def _scores(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in row.items():
        name, _, filter_name = key.partition(",")
        error = row.get(f"{name}_stderr,{filter_name}")
        if error is None or not isinstance(value, (int, float)):
            continue
        metrics = {"mean": {"name": "mean", "value": value}}
        if isinstance(error, (int, float)):
            metrics["stderr"] = {"name": "stderr", "value": error}
        label = _label(name, filter_name)
        yield {"name": label, "scorer": label, "metrics": metrics}


def _label(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric} ({filter_name})"
