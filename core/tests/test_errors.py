"""Messages are one line, and lead from a wrong name to the right one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import did_you_mean, one_line


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_short_line(text: str, limit: int) -> None:
    """Whatever a library puts into a message, it is one line of at most `limit` characters."""
    found = one_line(ValueError(text), limit)
    assert len(found.splitlines()) == 1
    assert 1 <= len(found) <= limit


def test_one_line_marks_what_it_cuts() -> None:
    """Line breaks become spaces, a cut is visible, and an error without text has its type."""
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(ValueError("abcdef"), 4) == "abc…"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("name", "known", "sentence"),
    [
        ("acc_nrm", ["acc", "acc_norm", "f1"], " Did you mean 'acc_norm' or 'acc'?"),
        ("zzz", ["b", "a"], " Known: a, b."),
        ("zzz", [f"name{n}" for n in range(13)], ""),
        ("zzz", [], ""),
    ],
)
def test_did_you_mean(name: str, known: list[str], sentence: str) -> None:
    """Near names, else all where they are few, else nothing."""
    assert did_you_mean(name, known) == sentence
