"""Both servers asked what their own OpenAPI schema allows, and what it does not: no 5xx."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

# Larger for a long run by hand.
EXAMPLES = int(os.environ.get("EVALKIT_TEST_FUZZ_EXAMPLES", "15"))
DERANDOMIZED = "EVALKIT_TEST_FUZZ_EXAMPLES" not in os.environ
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    schemathesis: Any = pytest.importorskip("schemathesis")


def fuzz(url: str) -> int:
    """Ask every operation `EXAMPLES` times, valid and not; returns how many requests there were."""
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    asked = 0
    with httpx.Client(base_url=url, timeout=60) as alive:
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                asked += _fuzz_one(operation, mode, url, [not_a_server_error])
            assert alive.get("/health").status_code == 200, operation.label
    return asked


def _fuzz_one(operation: Any, mode: Any, url: str, checks: list[Any]) -> int:
    asked = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=DERANDOMIZED,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        answer = case.call(base_url=url, timeout=60)
        case.validate_response(answer, checks=checks)

    try:
        ask()
    except Exception as error:
        if type(error).__name__ == "Unsatisfiable":  # an operation that nothing can be wrong about
            return asked
        raise
    return asked


def test_the_service_survives_what_its_schema_allows(serve: Callable[..., Any]) -> None:
    """No operation answers with a 5xx."""
    server = serve(allow_references=False)
    asked = fuzz(server.url)
    print(f"{asked} requests to the evaluation service")
    assert asked > 10 * EXAMPLES


def test_the_model_server_survives_what_its_schema_allows() -> None:
    """The same of a served model."""
    from evalkit_http.openai.server import build_openai_compatible_server

    with build_openai_compatible_server("evalkit.testing.fake:Fake", "any") as server:
        asked = fuzz(server.url)
    print(f"{asked} requests to the model server")
    assert asked > 10 * EXAMPLES
