"""Ask a server on this machine what it serves, without a library and past any proxy."""

from __future__ import annotations

import json
from typing import Any

from evalkit.servers.ports import HOST


def get(port: int, path: str, timeout: float) -> Any:
    """What a route answers; None where nobody answers with JSON in time."""
    return _ask(port, "GET", path, None, timeout)[1]


def models(port: int, timeout: float) -> list[str] | None:
    """The names of the models that a server lists; None where there is no such server."""
    answer = get(port, "/v1/models", timeout)
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return None
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]


def complete(port: int, model: str, timeout: float) -> tuple[int, str]:
    """The status of a completion of one token, and what was said; 0 where nobody answers in time."""
    body = {"model": model, "prompt": "Hi", "max_tokens": 1, "temperature": 0}
    status, answer = _ask(port, "POST", "/v1/completions", body, timeout)
    is_answer = isinstance(answer, dict) and bool(answer.get("choices"))
    return (status if is_answer or status != 200 else 0), json.dumps(answer)[:300]


def _ask(port: int, method: str, path: str, body: Any, timeout: float) -> tuple[int, Any]:
    import http.client

    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        return response.status, _json(text)
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")
