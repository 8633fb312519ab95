"""How long planning takes as requests grow: 500 tokens each, of which 300 are few-shot examples and 150 the question.

python bench_planner.py [REQUESTS]...
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np

from evalkit.scoring.forest import SpanTable, build_forest
from evalkit.scoring.planner import plan_forest

SIZES = (10_000, 100_000, 1_000_000)
EXAMPLES, QUESTION, LENGTH, CHOICES, BUDGET = 300, 150, 500, 4, 2048


def requests(count: int) -> SpanTable:
    """Random requests: eight sets of examples, four choices a question."""
    chance = np.random.default_rng(0)
    tokens = np.empty((count, LENGTH), np.int32)
    examples = chance.integers(0, 49_152, (8, EXAMPLES), np.int32)
    questions = chance.integers(0, 49_152, (count // CHOICES + 1, QUESTION), np.int32)
    question = np.arange(count) // CHOICES
    tokens[:, :EXAMPLES] = examples[question % len(examples)]
    tokens[:, EXAMPLES : EXAMPLES + QUESTION] = questions[question]
    tokens[:, EXAMPLES + QUESTION :] = chance.integers(0, 49_152, (count, LENGTH - EXAMPLES - QUESTION), np.int32)
    starts = np.full(count, EXAMPLES + QUESTION, np.int64)
    return SpanTable(tokens.reshape(-1), np.arange(count + 1, dtype=np.int64) * LENGTH, starts)


def measure(count: int) -> None:
    """Print one line."""
    table = requests(count)
    started = time.perf_counter()
    forest = build_forest(table)
    built = time.perf_counter()
    batches = sum(1 for _ in plan_forest(forest, BUDGET))
    planned = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{count:>9,} requests: forest {built - started:6.2f} s, plan {planned - built:6.2f} s, {batches:,} batches, "
        f"{memory:,} MiB, {forest.requested:,} tokens requested, {forest.unique:,} unique",
        flush=True,
    )


def main() -> None:
    """Each size in a process of its own, so that its peak of memory is its own."""
    if len(sys.argv) == 2:
        return measure(int(sys.argv[1]))
    for size in sys.argv[1:] or map(str, SIZES):
        subprocess.run([sys.executable, __file__, size], check=True)
    return None


if __name__ == "__main__":
    main()
