"""What a process of its own costs an engine: one task scored by a session here and by one in a child, in turns.

`python tests/benchmarks/bench_isolation.py --data-dir D [--engine transformers] [--task hellaswag] [--limit 100]`.
Both are warm. Beside the times, which depend on what else the machine does, it prints the CPU time of this process:
what it works for the child. The child's own share, the same frames from the other side, is about as much.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from evalkit.engine import BaseInferenceSession
from evalkit.isolation.engine import IsolatedEngine
from evalkit.model import Model
from evalkit.requests import Request
from evalkit.runs.plan import make_plan
from evalkit.runs.resolve import build_engine, resolve_model
from evalkit.runs.spec import make_spec

MODEL = "smollm2-135m"


def main() -> None:
    """Print the medians, and the median of the rounds' ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--task", default="hellaswag")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asked = requests(options)
    engine, spec = build_engine(options.engine, {})
    model = resolve_model(Model(MODEL), spec)
    with engine.build(model) as here, IsolatedEngine(options.engine).build(model) as there:
        seconds(here, asked)
        seconds(there, asked)
        rounds = []
        for _ in range(options.rounds):
            rounds.append((*seconds(here, asked), *seconds(there, asked)))
            print("{0:.2f} s, isolated {2:.2f} s".format(*rounds[-1]), file=sys.stderr, flush=True)
    direct, _, isolated, used = map(statistics.median, zip(*rounds, strict=True))
    ratio = statistics.median(row[2] / row[0] for row in rounds)
    print(f"{len(asked)} requests: {direct:.2f} s, isolated {isolated:.2f} s, ratio {ratio:.3f}")
    print(f"CPU of this process for the child: {used:.3f} s, {used / isolated:.2%} of the time")


def requests(options: argparse.Namespace) -> list[Request]:
    """What the task asks."""
    fields = {"tasks": [options.task], "engine": options.engine, "model": MODEL}
    plan = make_plan(make_spec({**fields, "limit": options.limit, "data_dir": options.data_dir}))
    return [asked.request for task in plan.tasks.values() for doc in task.ask(0, None) for asked in doc]


def seconds(session: BaseInferenceSession, asked: list[Request]) -> tuple[float, float]:
    """Wall and CPU seconds of this process."""
    session.gc()
    wall, used = time.perf_counter(), time.process_time()
    session.loglikelihood(asked)
    return time.perf_counter() - wall, time.process_time() - used


if __name__ == "__main__":
    main()
