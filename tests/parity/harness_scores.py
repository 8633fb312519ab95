"""Run lm-evaluation-harness on the mirror's data and print its requests, answers and metrics as JSON lines.

Runs in the harness's own environment: `python harness_scores.py CHECKPOINT MIRROR '[["piqa", 200, 0], ...]'`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import lm_eval
from lm_eval.models.huggingface import HFLM


def load_from_mirror(path, name=None, **_):
    """Stands in for `datasets.load_dataset`: the splits of the mirror."""
    import gzip

    splits = {}
    for file in sorted((Path(sys.argv[2]) / path / (name or "default")).glob("*.jsonl*")):
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        splits[file.name.split(".")[0]] = datasets.Dataset.from_list(rows)
    return datasets.DatasetDict(splits)


def main() -> None:
    """One JSON line a job: metrics, and a row (context, continuation, log-probability, is_greedy) a request."""
    datasets.load_dataset = load_from_mirror
    model = HFLM(pretrained=sys.argv[1], dtype="float32", device="cpu", batch_size=16)
    for task, limit, shots in json.loads(sys.argv[3]):
        found = lm_eval.simple_evaluate(
            model, tasks=[task], limit=limit, num_fewshot=shots, bootstrap_iters=100, log_samples=True
        )
        rows = []
        for sample in found["samples"][task]:
            for index, response in enumerate(sample["filtered_resps"]):
                context, continuation = sample["arguments"][index]
                rows.append([context, continuation, float(response[0]), str(response[1]) == "True"])
        line = {"task": task, "shots": shots, "metrics": found["results"][task], "rows": rows}
        print("RESULT " + json.dumps(line, default=str), flush=True)


if __name__ == "__main__":
    main()
