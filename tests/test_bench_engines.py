"""The benchmark of engines fails where token ids differ, over all documents of its jobs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module, beside its jobs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_engines

    module: ModuleType = bench_engines
    return module


@pytest.mark.parametrize(("digests", "status"), [(["aa", "aa"], 0), (["aa", "bb"], 1)])
def test_other_token_ids_fail_the_benchmark(
    bench: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    digests: list[str],
    status: int,
) -> None:
    """Exit status 1, and the engine that differs is named; every document that runs is among those compared."""
    left, orders = list(digests), []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        orders.append(command)
        return subprocess.CompletedProcess(command, 0, f"a warning\n{left.pop(0)}\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    options = argparse.Namespace(data_dir="d", hellaswag=500, gsm8k=24)
    assert bench.compare_ids({"one": sys.executable, "two": sys.executable}, options) == status
    assert ("token ids of two differ from those of one" in capsys.readouterr().err) == bool(status)
    assert [json.loads(order[-1]) for order in orders] == [{"hellaswag": 500, "gsm8k": 48}] * 2


def test_all_documents_are_digested(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last document of a job changes the digest as the first does."""
    jobs, plugins, resolve = (pytest.importorskip(name) for name in ("jobs", "evalkit.plugins", "evalkit.runs.resolve"))
    words: list[str] = []

    def write_requests(job: str, data_dir: str, path: Path, limit: int) -> None:
        lines = [json.dumps({"kind": "prompt", "prompt": word}) for word in words[:limit]]
        path.write_text("\n".join(lines), encoding="utf-8")

    class Session:
        def __enter__(self) -> Session:
            return self

        def __exit__(self, *error: object) -> None:
            return None

        def prompt_ids(self, request: Any) -> list[int]:
            return list(request.prompt.encode())

    class Engine:
        def build(self, model: object) -> Session:
            return Session()

    monkeypatch.setattr(jobs, "write_requests", write_requests)
    monkeypatch.setattr(plugins, "load_engine_class", lambda name: (Engine, None))
    monkeypatch.setattr(resolve, "resolve_model", lambda model, spec: model)
    found = []
    for last in ("x", "y"):
        words[:] = [*(str(number) for number in range(47)), last]
        found.append(bench.prompt_ids("any", "d", {"gsm8k": 48}))
    assert found[0] != found[1]
