"""What a process of its own costs an engine: inference of one task in this process and in a child, in turns.

`python tests/benchmarks/bench_isolation.py --data-dir D [--engine transformers] [--task hellaswag] [--limit 100]`.
Loading is not counted: a child loads a model as this process does, and a second later.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from evalkit.runner import evaluate

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
    direct, isolated = [], []
    for number in range(options.rounds):
        direct.append(seconds(options, isolate=False))
        isolated.append(seconds(options, isolate=True))
        print(f"round {number + 1}: {direct[-1]:.2f} s, isolated {isolated[-1]:.2f} s", file=sys.stderr, flush=True)
    ratio = statistics.median(b / a for a, b in zip(direct, isolated, strict=True))
    print(
        f"{options.task}, {options.limit} documents: {statistics.median(direct):.2f} s, "
        f"isolated {statistics.median(isolated):.2f} s, ratio {ratio:.3f}"
    )


def seconds(options: argparse.Namespace, *, isolate: bool) -> float:
    """Inference of a run."""
    with tempfile.TemporaryDirectory() as folder:
        result = evaluate(
            options.task,
            engine=options.engine,
            model=MODEL,
            limit=options.limit,
            data_dir=options.data_dir,
            isolate=isolate,
            output=str(Path(folder) / "run"),
        )
    return result.seconds.inference


if __name__ == "__main__":
    main()
