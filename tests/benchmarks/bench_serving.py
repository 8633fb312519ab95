"""A served model beside the same engine used directly and, for llama.cpp, beside llama-cpp-python's own server.

`bench_serving.py [--engine llamacpp] [--engine-arg K=V ...] [--model M] [--job write|few-shot|score] [--rounds N]`.
Needs evalkit-http, the engine's package and evalkit-smollm2, and for the peer llama-cpp-python[server]. The clients run
on the same machine. Rounds alternate; a job is as many requests as there are clients, twice.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.options import parse_free
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.runs.resolve import build_engine, resolve_model

SHOTS = "".join(f"Question: {n} and {n + 3} is what?\nAnswer: {n} + {n + 3} = {2 * n + 3}.\n\n" for n in range(12))
PROMPTS: dict[str, Callable[[int], str]] = {
    "write": lambda n: f"About number {n}: once upon a time, in a town with {n + 2} houses, there lived",
    "few-shot": lambda n: f"{SHOTS}Question: {7 * n} and {n + 5} is what?\nAnswer:",
    "score": lambda n: f"{SHOTS}Question: {7 * n} and {n + 5} is what?\nAnswer: {8 * n + 5}",
}
READY_SECONDS = 300
PEER = "llama_cpp.server"


class Bench:
    """One job for all systems."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model = options.model
        self.job, self.clients, self.new_tokens = options.job, options.clients, options.new_tokens
        self.prompts = [PROMPTS[options.job](n) for n in range(1, 2 * options.clients + 1)]

    def direct(self, session: BaseInferenceSession) -> int:
        """Everything at once; tokens that came."""
        if self.job == "score":
            session.loglikelihood([LoglikelihoodRequest("", prompt, logprobs=1) for prompt in self.prompts])
            return len(self.prompts)
        requests = [GenerationRequest(prompt=prompt, max_new_tokens=self.new_tokens) for prompt in self.prompts]
        return sum(len(output.token_ids) for output in session.generate(requests))

    def served(self, url: str) -> int:
        """The same by clients that each ask anew when they have an answer."""
        return asyncio.run(self._served(url))

    async def _served(self, url: str) -> int:
        places = asyncio.Semaphore(self.clients)
        async with httpx.AsyncClient(base_url=url, timeout=3600) as client:

            async def ask(prompt: str) -> int:
                async with places:
                    answer = await client.post("/v1/completions", json=self._body(prompt))
                answer.raise_for_status()
                return int(answer.json()["usage"]["completion_tokens"])

            return sum(await asyncio.gather(*map(ask, self.prompts)))

    def _body(self, prompt: str) -> dict[str, Any]:
        common = {"model": self.model, "prompt": prompt, "temperature": 0}
        if self.job == "score":
            return {**common, "max_tokens": 1, "echo": True, "logprobs": 1}
        return {**common, "max_tokens": self.new_tokens}


@contextmanager
def server(words: list[str], port: int, ready: str) -> Iterator[str]:
    """A server's address while it runs."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(READY_SECONDS * 5):
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(words)} ended. Start it by hand to see why")
                if _answers(url + ready):
                    break
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def main() -> None:
    """Print seconds and tokens a second of each system, as medians, and the ratios to the served model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="llamacpp")
    parser.add_argument("--engine-arg", action="append", default=[])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--job", choices=PROMPTS, default="write")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8701)
    options = parser.parse_args()
    bench = Bench(options)
    engine, spec = build_engine(options.engine, parse_free(options.engine_arg))
    model = resolve_model(Model(options.model), spec)
    arguments = [word for value in options.engine_arg for word in ("--engine-arg", value)]
    own = [sys.executable, "-m", "evalkit", "serve-model", "--engine", options.engine, "--model", options.model]
    with ExitStack() as stack:
        url = stack.enter_context(server([*own, *arguments, "--port", str(options.port)], options.port, "/ready"))
        systems: dict[str, Callable[[], int]] = {"evalkit serve-model": lambda: bench.served(url)}
        session = stack.enter_context(engine.build(model))
        systems["engine used directly"] = lambda: bench.direct(session)
        if options.engine == "llamacpp" and options.job != "score":
            words = [sys.executable, "-m", PEER, "--model", model.path, "--n_ctx", "4096", "--port"]
            peer = stack.enter_context(server([*words, str(options.port + 1)], options.port + 1, "/v1/models"))
            systems[PEER] = lambda: bench.served(peer)
        report(systems, options.rounds)


def report(systems: dict[str, Callable[[], int]], rounds: int) -> None:
    """Run alternating rounds, and print."""
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, run in systems.items():
            started = time.perf_counter()
            tokens = run()
            seconds = time.perf_counter() - started
            rates[name].append(tokens / seconds)
            print(f"{name:24}{seconds:8.1f} s {tokens:8} tokens", file=sys.stderr, flush=True)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"{name:24}{rate:8.1f} a second; served / this: {medians['evalkit serve-model'] / rate:.2f}")


if __name__ == "__main__":
    main()
