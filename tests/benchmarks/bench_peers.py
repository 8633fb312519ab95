"""Compare evalkit with its peers: same requests, checkpoint, dtype and threads, alternating in one run.

    python bench_peers.py --data-dir D --python lm-eval=PATH --python evalution=PATH [--python vllm=PATH]
        [--engine transformers] [--rounds 3] [--job hellaswag]... [--limit N] [--dtype bfloat16]

Prints a table a job: median seconds to answer, ratio to evalkit, seconds of the whole process (start, load and answer),
peak memory while answering, tokens, redundancy, and the share of the dense floor.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


class CrashedError(Exception):
    """A system that could not answer."""


class Worker:
    """A system in a process and an environment of its own."""

    def __init__(self, system: str, python: str, engine: str, checkpoint: str, dtype: str) -> None:
        command = [python, str(HERE / "workers.py"), system, engine, checkpoint, dtype]
        started = time.perf_counter()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )
        self._read()
        self.start_seconds = time.perf_counter() - started
        """From the command to a loaded model."""
        self._rest()

    def answer(self, path: Path) -> dict[str, Any]:
        """The worker's report on one job."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        found = self._read()
        self._rest()
        return found

    def close(self) -> None:
        """End the process."""
        self.process.send_signal(signal.SIGCONT)
        self.process.communicate()

    def _rest(self) -> None:
        # Some keep threads awake while they wait: a few wake-ups make every pass of the others wait for a thread.
        self.process.send_signal(signal.SIGSTOP)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines() or ["no word"]
            raise CrashedError(f"ended with status {status}: {lines[-1][:200]}")
        found: dict[str, Any] = json.loads(line)
        return found


def main() -> None:
    """Run all jobs and print the tables."""
    from jobs import JOBS

    from evalkit_smollm2.checkpoint import hf_checkpoint
    from evalkit_smollm2.gguf import gguf_file

    options = parse()
    pythons = {"evalkit": sys.executable, **dict(word.split("=", 1) for word in options.python)}
    checkpoint = gguf_file() if options.engine in ("llamacpp", "tinygrad") else hf_checkpoint()
    for job in options.job or JOBS:
        run_job(job, pythons, checkpoint, options)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--python", action="append", default=[], metavar="SYSTEM=PATH")
    parser.add_argument("--job", action="append")
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--dtype", default="bfloat16")
    return parser.parse_args()


def run_job(job: str, pythons: dict[str, str], checkpoint: str, options: argparse.Namespace) -> None:
    """Alternate the systems over the rounds and print the job's table."""
    from floor import dense_floors
    from jobs import write_requests

    # Workers are closed whatever happens: one that is stopped would outlive this process.
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        path = Path(folder) / "requests.jsonl"
        count = write_requests(job, options.data_dir, path, options.limit)
        wanted = {name: python for name, python in pythons.items() if name != "vllm" or job == "gsm8k"}
        workers: dict[str, Worker] = {}
        crashed: dict[str, str] = {}
        for name, python in wanted.items():
            try:
                workers[name] = Worker(name, python, options.engine, checkpoint, options.dtype)
                running.callback(workers[name].close)
            except CrashedError as error:
                crashed[name] = str(error)
        reports: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        floors: list[dict[str, float]] = []
        for _ in range(options.rounds):
            for name in [name for name in workers if name not in crashed]:
                try:
                    reports[name].append(workers[name].answer(path))
                except CrashedError as error:
                    crashed[name] = str(error)
            ours = reports["evalkit"][-1]
            if ours["scored"] and options.engine == "transformers":
                floors.append(dense_floors(checkpoint, options.dtype, **ours["scored"]))
    print(f"\n{job}: {count} requests, {options.engine}, {options.dtype}")
    answered = {name: found for name, found in reports.items() if found and name not in crashed}
    print_table(answered, {name: workers[name].start_seconds for name in answered})
    for name, problem in crashed.items():
        print(f"  {name:10} {problem}", flush=True)
    for kind in floors[0] if floors else ():
        seconds = [found[kind] for found in floors]
        floor, ours = statistics.median(seconds), statistics.median(r["seconds"] for r in reports["evalkit"])
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        print(f"  floor, {kind:5} rows {floor:6.2f} s ({spread})  evalkit is at {floor / ours:.0%} of it", flush=True)


def print_table(reports: dict[str, list[dict[str, Any]]], starts: dict[str, float]) -> None:
    """One line a system."""
    ours = statistics.median(report["seconds"] for report in reports["evalkit"])
    print("  system        median s (least-most)   ratio  whole s  peak MiB  answers beside evalkit's; tokens")
    for name, found in reports.items():
        seconds = [report["seconds"] for report in found]
        median = statistics.median(seconds)
        line = f"  {name:10} {median:8.2f} ({min(seconds):7.2f}-{max(seconds):7.2f})  {median / ours:5.2f}x"
        line += f"  {starts[name] + median:7.1f}  {found[-1]['peak_mib']:8}"
        line += f"  {agreement(found[-1]['answers'], reports['evalkit'][-1]['answers'])}"
        if tokens := found[-1]["tokens"]:
            line += f"; requested {tokens['requested']}, computed {tokens['computed']}"
            line += f", redundancy {tokens['computed'] / tokens['unique']:.3f}"
        print(line, flush=True)


def agreement(found: list[Any], ours: list[Any]) -> str:
    """How far answers are from evalkit's."""
    if isinstance(ours[0], str):
        same = sum(a.strip() == b.strip() for a, b in zip(found, ours, strict=True))
        return f"{same}/{len(ours)} texts equal"
    return f"largest difference {max(abs(a - b) for a, b in zip(found, ours, strict=True)):.1e}"


if __name__ == "__main__":
    main()
