"""JSON that no handler should meet: bad UTF-8, NaN, endless nesting, numbers that no float holds."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 64
LARGEST_INTEGER = 2**63 - 1
"""What SQLite and every JSON library hold."""
LONG_INTEGER = re.compile(r"[0-9]{19}")
SURROGATE = re.compile(r"[\ud800-\udfff]")


class BadBodyError(ValueError):
    """The body is not usable JSON; the message says why."""


def check_json(body: bytes) -> None:
    """Raise BadBodyError where `body` is no JSON text that every later step can hold, store and send again."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadBodyError(f"the body is not UTF-8 (byte {error.start})") from error
    # A function a number is slow for lists of token ids, so only where some number is long.
    integer = _integer if LONG_INTEGER.search(text) else None
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=integer)
    except RecursionError as error:
        raise BadBodyError(f"the body is nested more than {MAX_DEPTH} deep") from error
    except json.JSONDecodeError as error:
        raise BadBodyError(f"the body is no JSON: {error.msg} (character {error.pos})") from error
    # Only an escape makes half a surrogate pair, which cannot be written as UTF-8 again.
    strings = "\\ud" in text or "\\uD" in text
    if strings or text.count("[") + text.count("{") > MAX_DEPTH:
        _check_tree(value, strings=strings)


def _check_tree(value: Any, *, strings: bool) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        if strings and any(SURROGATE.search(item) for item in _texts(level)):
            raise BadBodyError("the body holds half of a surrogate pair")
        level = [child for item in level for child in _children(item) if strings or isinstance(child, (dict, list))]
        if not level:
            return
    raise BadBodyError(f"the body is nested more than {MAX_DEPTH} deep")


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def _texts(level: list[Any]) -> list[str]:
    keys = [key for item in level if isinstance(item, dict) for key in item]
    return keys + [item for item in level if isinstance(item, str)]


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadBodyError("the body holds a number that is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) > LARGEST_INTEGER:
        raise BadBodyError("the body holds a number that is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise BadBodyError(f"the body holds {name}, which is no JSON")
