"""One model through all engines: scores, agreement, time, tokens and memory, each engine in its own environment.

    python bench_engines.py --data-dir D --python transformers=PATH --python llamacpp=PATH ...
        [--hellaswag 200] [--gsm8k 24]

Runs `evalkit run` as a user would, a fresh process a run. The first engine is what the others are compared with.
Ends with exit status 1 where an engine has other token ids for any prompt of both jobs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODEL = "smollm2-135m"


def main() -> None:
    """Print a table a task, then whether token ids are equal."""
    if sys.argv[1] == "--ids":
        print(prompt_ids(sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
        return
    options = parse()
    pythons = dict(word.split("=", 1) for word in options.python)
    for task, limit in (("hellaswag", options.hellaswag), ("jobs:GSM8K", options.gsm8k)):
        print(f"\n{task}, {limit} documents\n  engine        scores; agreement; seconds; computed / unique; peak MiB")
        first: list[Any] = []
        for engine, python in pythons.items():
            with tempfile.TemporaryDirectory() as folder:
                report = run(engine, python, task, limit, options, Path(folder) / "run")
            first = first or report["answers"]
            same = sum(a == b for a, b in zip(report["answers"], first, strict=True))
            print(f"  {engine:12}  {report['line']}; agrees in {same}/{len(first)}", flush=True)
    sys.exit(compare_ids(pythons, options))


def compare_ids(pythons: dict[str, str], options: argparse.Namespace) -> int:
    """Print a digest of each engine's token ids; the exit status, 1 where one differs from the first."""
    from jobs import JOBS

    chosen = {"hellaswag": options.hellaswag, "gsm8k": options.gsm8k}
    limits = {job: max(JOBS[job][1], limit) for job, limit in chosen.items()}
    digests = {}
    for engine, python in pythons.items():
        command = [python, __file__, "--ids", engine, options.data_dir, json.dumps(limits)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
        digests[engine] = done.stdout.strip().splitlines()[-1]
        print(f"  {engine:12}  token ids {digests[engine][-16:]}", flush=True)
    first = next(iter(digests), "")
    other = [engine for engine, digest in digests.items() if digest != digests[first]]
    if other:
        print(f"token ids of {', '.join(other)} differ from those of {first}", file=sys.stderr)
    return int(bool(other))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH")
    parser.add_argument("--hellaswag", type=int, default=200)
    parser.add_argument("--gsm8k", type=int, default=24)
    return parser.parse_args()


def environment() -> dict[str, str]:
    """This folder's jobs can be named as tasks."""
    return {**os.environ, "PYTHONPATH": str(HERE)}


def run(engine: str, python: str, task: str, limit: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One `evalkit run`; its answers and a line of figures."""
    command = [python, "-m", "evalkit", "run", task, "--engine", engine, "--model", MODEL, "--limit", str(limit)]
    command += ["--data-dir", options.data_dir, "--output", str(folder), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{engine} failed: {said[-500:]}")
    whole = time.perf_counter() - started
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    scores = next(iter(found["results"].values()))
    kept = {
        name: round(value, 4) for name, value in scores.items() if isinstance(value, float) and "stderr" not in name
    }
    tokens, seconds = found["tokens"], found["seconds"]
    line = f"{kept}; inference {seconds['inference']:.1f} s, load {seconds['load']:.1f} s, whole {whole:.1f} s; "
    line += f"{tokens['computed']} / {tokens['unique']} = {tokens['computed'] / tokens['unique']:.3f}; "
    line += f"{used.ru_maxrss // 1024} MiB"
    samples = next(folder.glob("samples_*.jsonl")).read_text(encoding="utf-8").split("\n")
    return {"line": line, "answers": [_answer(json.loads(sample)) for sample in samples if sample]}


def _answer(sample: dict[str, Any]) -> Any:
    """The choice of a multiple-choice document, else the text."""
    answers = [answer[0] for answer in sample["resps"]]
    if isinstance(answers[0], list):
        scores = [score for score, _ in answers]
        return scores.index(max(scores))
    return answers


def prompt_ids(engine: str, data_dir: str, limits: dict[str, int]) -> str:
    """A digest of the token ids of every prompt of some jobs, so many documents of each, in this environment."""
    from jobs import write_requests

    from evalkit.model import Model
    from evalkit.plugins import load_engine_class
    from evalkit.requests import GenerationRequest, LoglikelihoodRequest
    from evalkit.runs.resolve import resolve_model

    cls, spec = load_engine_class(engine)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder, cls().build(resolve_model(Model(MODEL), spec)) as session:
        path = Path(folder) / "requests.jsonl"
        for job, limit in limits.items():
            write_requests(job, data_dir, path, limit)
            for line in path.read_text(encoding="utf-8").split("\n"):
                request = {name: value for name, value in json.loads(line).items() if name != "kind"}
                if "prompt" in request:
                    ids: Any = session.prompt_ids(GenerationRequest(**request))
                else:
                    (pair,) = session.encode([LoglikelihoodRequest(**request)])
                    ids = (pair.context, pair.continuation)
                digest.update(repr(ids).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
