"""lm-evaluation-harness as a client of our server, or with the model itself: results and answers as JSON lines.

Runs in the harness's own environment, on the mirror's data:
`python harness_client.py MIRROR '[{"name": ..., "model": ..., "args": {...}, "task": ..., "limit": ...}, ...]'`.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path

import datasets
import lm_eval
from lm_eval.tasks import TaskManager


def load_from_mirror(path, name=None, **_):
    """Stands in for `datasets.load_dataset`: the splits of the mirror; those that it lacks are empty."""
    splits = Splits()
    for file in sorted((Path(sys.argv[1]) / path / (name or "default")).glob("*.jsonl*")):
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        splits[file.name.split(".")[0]] = datasets.Dataset.from_list(rows)
    return splits


class Splits(datasets.DatasetDict):
    """The harness opens training splits that it draws nothing from."""

    def __missing__(self, split):
        return datasets.Dataset.from_list([])


def main() -> None:
    """One JSON line a job: its metrics, and for each document what was answered."""
    datasets.load_dataset = load_from_mirror
    # Made once: it reads thousands of files.
    manager = TaskManager()
    for job in json.loads(sys.argv[2]):
        started = time.perf_counter()
        found = lm_eval.simple_evaluate(
            job["model"],
            model_args=job["args"],
            tasks=[job["task"]],
            limit=job["limit"],
            num_fewshot=job.get("shots"),
            apply_chat_template=job.get("chat", False),
            fewshot_as_multiturn=job.get("chat", False),
            batch_size=job.get("batch_size", 8),
            gen_kwargs=job.get("gen"),
            bootstrap_iters=0,
            log_samples=True,
            device="cpu",
            task_manager=manager,
        )
        samples = sorted(found["samples"][job["task"]], key=lambda sample: sample["doc_id"])
        line = {
            "name": job["name"],
            "task": job["task"],
            "metrics": found["results"][job["task"]],
            "answers": [sample["resps"] for sample in samples],
            "seconds": time.perf_counter() - started,
        }
        print("RESULT " + json.dumps(line, default=str), flush=True)


if __name__ == "__main__":
    main()
