"""Options of the parity tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def harness(request: pytest.FixtureRequest) -> str:
    """The Python that has lm-evaluation-harness."""
    python: str | None = request.config.getoption("--harness")
    if python is None:
        pytest.skip("needs lm-evaluation-harness in an environment of its own: nox -s parity")
    return python
