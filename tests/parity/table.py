"""Compare every task that the mirror has data for, and write the table in docs/parity.md.

Runs where evalkit with all suites, evalkit-lm-eval, torch and lm-evaluation-harness are installed together:
`python tests/parity/table.py --data-dir MIRROR [--limit 50] [--only PATTERN,PATTERN] [--keep FOLDER] [--write]`; the
other options are in its help. Each task is evaluated three times with SmolLM2-135M in float32: by the harness with its
`hf` model, by evalkit as its own task, and by evalkit as `lm_eval:NAME`. It takes hours: what is found is kept task by
task, and not made again by the next call with the same `--keep`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from parity.harness import mirrored
from parity.test_parity_requests import SUITES, tasks_with_data

import evalkit
from evalkit.plugins import get_plugins

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
START, END = "<!-- from here on: nox -s parity_table -->\n", "<!-- to here -->\n"
FAMILIES = ("mmlu", "bbh_cot_fewshot", "bbh_cot_zeroshot", "bbh_fewshot", "bbh_zeroshot", "bbh")
TOLERANCE = 1e-3
Rows = list[tuple[Any, ...]]


@dataclass
class Found:
    """What comparing one task gave; several are added up for a family of tasks."""

    tasks: int = 1
    documents: int = 0
    requests: int = 0
    same_requests: int = 0
    worst: float = 0.0
    texts: int = 0
    same_texts: int = 0
    metrics: dict[str, list[bool]] = field(default_factory=lambda: {"native": [], "adapted": [], "stderr": []})

    def __add__(self, other: Found) -> Found:
        merged = {key: values + other.metrics[key] for key, values in self.metrics.items()}
        numbers = (
            getattr(self, name) + getattr(other, name) for name in ("tasks", "documents", "requests", "same_requests")
        )
        texts = (self.texts + other.texts, self.same_texts + other.same_texts)
        return Found(*numbers, max(self.worst, other.worst), *texts, merged)

    def cells(self, name: str) -> list[str]:
        """The row of the table."""
        answers = f"{self.same_texts} of {self.texts} texts" if self.texts else f"within {self.worst:.0e}"
        counts = {key: f"{sum(values)} of {len(values)}" for key, values in self.metrics.items()}
        label = f"`{name}`" + (f" ({self.tasks} tasks)" if self.tasks > 1 else "")
        same = f"{self.same_requests} of {self.requests}"
        return [label, str(self.documents), same, answers, counts["native"], counts["adapted"], counts["stderr"]]


def harness_run(model: Any, manager: Any, name: str, limit: int, data_dir: str) -> tuple[Rows, dict[str, Any]]:
    """The harness's requests with their answers, and its metrics."""
    import lm_eval

    with mirrored(data_dir):
        found = lm_eval.simple_evaluate(
            model,
            tasks=[name],
            task_manager=manager,
            limit=limit,
            bootstrap_iters=100,
            log_samples=True,
            confirm_run_unsafe_code=True,
        )
    samples = {sample["doc_id"]: sample for sample in found["samples"][name]}
    rows = [
        (*arguments, _plain(answer))
        for _, sample in sorted(samples.items())
        for arguments, answers in zip(sample["arguments"], sample["resps"], strict=True)
        for answer in answers
    ]
    return rows, found["results"][name]


def own_run(name: str, limit: int, data_dir: str) -> tuple[Rows, dict[str, Any]]:
    """The same from evalkit. What was asked in the same words is answered by the cache of this comparison."""
    with tempfile.TemporaryDirectory() as folder:
        result = evalkit.evaluate(
            name,
            engine="transformers",
            model="smollm2-135m",
            model_args={"dtype": "float32"},
            data_dir=data_dir,
            limit=limit,
            truncate=True,
            allow_code_execution=True,
            cache=True,
            output=str(Path(folder) / "run"),
        )
        (file,) = (Path(folder) / "run").glob("samples_*.jsonl")
        samples = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    by_doc = {sample["doc_id"]: sample for sample in samples}
    rows = [
        (*arguments, _plain(answers[0]))
        for _, sample in sorted(by_doc.items())
        for arguments, answers in zip(sample["arguments"], sample["resps"], strict=True)
    ]
    return rows, result.results[name]


def _plain(answer: Any) -> Any:
    """A log-probability, or a text."""
    if isinstance(answer, str):
        return answer
    return float(answer[0] if isinstance(answer, list | tuple) else answer)


def compare(model: Any, manager: Any, name: str, limit: int, data_dir: str) -> Found:
    """One task, three times."""
    theirs, expected = harness_run(model, manager, name, limit, data_dir)
    ours, native = own_run(name, limit, data_dir)
    _, adapted = own_run(f"lm_eval:{name}", limit, data_dir)
    found = Found(requests=len(theirs), documents=int(expected.get("sample_len", limit)))
    for row, other in zip(ours, theirs, strict=True):
        found.same_requests += _texts(row) == _texts(other)
        if isinstance(other[-1], str):
            found.texts += 1
            found.same_texts += row[-1] == other[-1]
        else:
            found.worst = max(found.worst, abs(row[-1] - other[-1]))
    for key, value in expected.items():
        if isinstance(value, float) and "," in key:
            errors = "_stderr," in key
            found.metrics["stderr" if errors else "native"].append(_close(native.get(key), value))
            if not errors:
                found.metrics["adapted"].append(_close(adapted.get(key), value))
    return found


def _texts(row: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(value for value in row[:-1] if isinstance(value, str))


def _close(ours: Any, theirs: float) -> bool:
    """Equal, but for what a log-probability's last digits do to a perplexity."""
    return isinstance(ours, int | float) and math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=1e-9)


def family(name: str) -> str:
    """The table's row that a task is counted in."""
    if name.startswith("mmlu") and name.endswith("_continuation"):
        return "mmlu_continuation"
    return next((prefix for prefix in FAMILIES if name.startswith(prefix)), name)


def make_kept(model: Any, manager: Any, names: list[str], limit: int, data_dir: str, keep: Path) -> None:
    """A file for each task that has none; a task that one of the programs cannot run is reported and left out."""
    for name in names:
        file = keep / f"{name}.json"
        if file.exists():
            continue
        try:
            found = compare(model, manager, name, limit, data_dir)
        except Exception as error:  # the table is worth having without one task
            print(f"{name}: {type(error).__name__}: {error}"[:300], file=sys.stderr, flush=True)
            continue
        file.write_text(json.dumps(asdict(found)), encoding="utf-8")
        print(" | ".join(found.cells(name)), file=sys.stderr, flush=True)


def kept(names: list[str], keep: Path) -> dict[str, Found]:
    """What was found, the tasks of a family added up, in the order of `names`."""
    rows: dict[str, Found] = {}
    for name in names:
        if (file := keep / f"{name}.json").exists():
            found, row = Found(**json.loads(file.read_text(encoding="utf-8"))), family(name)
            rows[row] = rows[row] + found if row in rows else found
    return rows


def table(rows: dict[str, Found]) -> str:
    """The table in Markdown."""
    head = ["task", "documents", "same requests", "answers", "metrics", "metrics of `lm_eval:`", "standard errors"]
    lines = [head, ["---"] * len(head), *(found.cells(name) for name, found in rows.items())]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def main() -> None:
    """Compare, print, and with --write put the table into its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--only", default="*")
    parser.add_argument("--keep", type=Path, help="a folder for what is found of each task")
    parser.add_argument("--batch-size", type=int, default=16, help="of the harness; long answers want all at once")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from evalkit_smollm2.checkpoint import hf_checkpoint

    get_plugins()
    names = [name for suite in SUITES for name in tasks_with_data(suite, options.data_dir)]
    patterns = options.only.split(",")
    chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    with tempfile.TemporaryDirectory() as scratch:
        # An answer cache that knows nothing of earlier comparisons.
        os.environ["EVALKIT_CACHE_DIR"] = scratch
        model = HFLM(pretrained=hf_checkpoint(), dtype="float32", device="cpu", batch_size=options.batch_size)
        # The default one copies all keys and values at every token: half of the time of long answers.
        model.model.generation_config.cache_implementation = "static"
        keep = options.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        make_kept(model, TaskManager(), chosen, options.limit, options.data_dir, keep)
        text = table(kept(names, keep))
    print(text)
    if options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        PAGE.write_text(before + START + text + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
