"""What the tests share: run folders with chosen answers, real runs, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.reading.finished import Run, open_runs
from evalkit.runner import evaluate
from evalkit.testing.browser import headless_chromium
from evalkit.testing.finished import write_run

Make = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> Make:
    """`make_run("a", quiz=[rows])`: a finished run with these samples."""
    return lambda name, **given: write_run(tmp_path / "runs" / name, **given)


@pytest.fixture
def opened(make_run: Make) -> Callable[..., list[Run]]:
    """`opened(a=[rows], b=[rows])`: runs of one task."""
    return lambda **runs: open_runs([make_run(name, quiz=rows) for name, rows in runs.items()])


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a multiple-choice, a generation and a perplexity task with the fake engine."""
    pytest.importorskip("evalkit_tasks_starter")
    path = tmp_path_factory.mktemp("real") / "run"
    evaluate("starter", engine="evalkit.testing.fake:Fake", model="any", limit=25, output=str(path))
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with headless_chromium() as browser:
        yield browser
