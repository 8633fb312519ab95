"""Options that all test suites of this repository share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--data-dir`, the mirror of data sets that tests against real documents read."""
    parser.addoption("--harness", default=None, help="a Python that has lm-evaluation-harness")
    parser.addoption("--data-dir", default=None, help="mirror of data sets: <hub id>/<config>/<split>.jsonl")


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> str:
    """The mirror of data sets; a test that needs it is skipped where none was given."""
    path: str | None = request.config.getoption("--data-dir")
    if path is None:
        pytest.skip("give the mirror of data sets with --data-dir")
    return path
