"""How long `POST /evaluate`, `GET /jobs/ID` and `GET /health` take at `evalkit serve` while many jobs wait.

`bench_service.py [--jobs N] [--requests N] [--device NAME ...]`. Needs evalkit-http. Jobs of an earlier start fill the
queue, one job runs, and a client on the same machine asks in turns. Devices are named, not used: "cuda:0" needs none.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from evalkit_http import EvalClient
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.job import Accepted
from evalkit_http.service.jobs import JobStore
from evalkit_http.service.protocol import EvaluateRequest
from evalkit_http.service.slots import Slots
from evalkit_http.service.translate import canonical, evaluation_work

LAYOUTS = {"a CPU slot": ["cpu"], "two GPU slots and a CPU slot": ["cuda:0", "cuda:1", "cpu"]}
SLOW = {
    "model": "evalkit.testing.fake:Fake",
    "model_args": {"pretrained": "any", "delay": 60.0},
    "tasks": ["starter_arithmetic"],
}


def fill(folder: Path, devices: list[str], jobs: int) -> None:
    """Queue jobs for the first device."""
    args = ServerArgs(state_dir=folder, devices=tuple(devices), allow_references=True)
    body = EvaluateRequest.model_validate(SLOW)
    work = evaluation_work(body, args, Slots(devices, gpus=()))
    with closing(JobStore(folder / "jobs.sqlite")) as store:
        for _ in range(jobs):
            store.accept(Accepted("evaluate", canonical(body), work))


@contextmanager
def server(folder: Path, devices: list[str]) -> Iterator[EvalClient]:
    """A client of a server while it runs."""
    named = [word for device in devices for word in ("--device", device)]
    words = [sys.executable, "-m", "evalkit", "serve", "--port", "0", "--state-dir", str(folder), "--allow-references"]
    with subprocess.Popen([*words, *named], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = next(line for line in process.stdout if "http://" in line).partition(" at ")[2].split(" ")[0]
        try:
            with EvalClient(url) as client:
                yield client
        finally:
            process.terminate()


def percentiles(ask: Callable[[], Any], requests: int) -> str:
    """Milliseconds of a request: median and 99th percentile."""
    found = []
    for _ in range(requests):
        started = time.perf_counter()
        ask()
        found.append(1000 * (time.perf_counter() - started))
    return f"p50 {statistics.median(found):6.1f} ms   p99 {statistics.quantiles(found, n=100)[98]:6.1f} ms"


def main() -> None:
    """Print a line a request and layout of slots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--device", action="append", help="slots, in place of the two layouts")
    options = parser.parse_args()
    layouts = {"given slots": options.device} if options.device else LAYOUTS
    for name, devices in layouts.items():
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), devices, options.jobs)
            with server(Path(folder), devices) as client:
                last = client.evaluate(**SLOW)["job_id"]
                asks: dict[str, Callable[[], Any]] = {
                    "submit": lambda client=client: client.evaluate(**SLOW),
                    "status": lambda client=client, last=last: client.get_job(last),
                    "health": lambda client=client: client.health(),
                }
                for request, ask in asks.items():
                    print(f"{options.jobs} jobs, {name}: {request:8}{percentiles(ask, options.requests)}", flush=True)


if __name__ == "__main__":
    main()
