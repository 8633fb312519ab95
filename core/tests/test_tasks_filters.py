"""Filters find the answer in a generated text, as lm-evaluation-harness's filters do."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.tasks.filters import INVALID, lowercase, regex, strip, take_first

NUMBER = r"(-?[0-9.,]{2,})|(-?[0-9]+)"


@pytest.mark.parametrize(
    ("pattern", "options", "text", "found"),
    [
        (r"#### (\-?[0-9\.\,]+)", {}, "so 3 + 4.\n#### 7\n#### 8", "7"),
        (r"#### (\-?[0-9\.\,]+)", {"select": -1}, "so 3 + 4.\n#### 7\n#### 8", "8"),
        (r"#### (\-?[0-9\.\,]+)", {"select": 1}, "#### 7\n#### 8", "8"),
        (r"#### (\-?[0-9\.\,]+)", {"select": 2}, "#### 7\n#### 8", INVALID),
        (r"#### (\-?[0-9\.\,]+)", {"select": -3}, "#### 7\n#### 8", INVALID),
        (r"#### (\-?[0-9\.\,]+)", {}, "seven", INVALID),
        (r"#### (\-?[0-9\.\,]+)", {"fallback": "none"}, "seven", "none"),
        (NUMBER, {"select": -1}, "first 12,5 then 3", "3"),
        (NUMBER, {"select": 0}, "first 12,5 then 3", "12,5"),
        (r"(a)?(b)?c", {}, "c", INVALID),
        (r"answer: .*", {}, "the answer: yes \n", "answer: yes"),
        (r"x*", {}, "yes", ""),
    ],
)
def test_regex(pattern: str, options: dict[str, Any], text: str, found: str) -> None:
    """The chosen match's first group that matched, stripped; the fallback where there is none."""
    assert regex(pattern, **options)([text]) == [found]


def test_filters_keep_one_text_for_each() -> None:
    """Every text is filtered on its own, in order."""
    assert regex(r"(\d)")(["a1", "b", "c3"]) == ["1", INVALID, "3"]
    assert strip([" a ", "b\n"]) == ["a", "b"]
    assert lowercase(["Ab", "Ä"]) == ["ab", "ä"]


def test_take_first() -> None:
    """Of several samples the first is kept, of none none."""
    assert take_first(["a", "b"]) == ["a"]
    assert take_first([]) == []
