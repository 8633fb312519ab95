"""The Python that a server runs under is found, or refused with what to do, before anything is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalkit.errors import PluginError
from evalkit.servers.interpreter import find_interpreter


def test_this_python_is_taken_where_it_has_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of it says which packages there are."""
    monkeypatch.delenv("EVALKIT_FAKE_PYTHON", raising=False)
    found = find_interpreter("fake", "pydantic")
    assert found.python == sys.executable
    assert found.about["library"].startswith("pydantic 2.")
    assert set(found.about) == {"python", "library", "packages"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "which is not there"),
        ("#!/bin/sh\necho 'not I'\n", "is no working Python.*not I"),
        (f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', "has no pydantic. Install it there"),
    ],
)
def test_a_wrong_python_is_refused(
    content: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable, the program and what is wrong with it, before anything is started."""
    program = tmp_path / "python"
    if content is not None:
        program.write_text(content, encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("EVALKIT_FAKE_PYTHON", str(program))
    with pytest.raises(PluginError, match=rf"EVALKIT_FAKE_PYTHON.*{program}.*{words}"):
        find_interpreter("fake", "pydantic")


def test_without_the_library_an_environment_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the command."""
    monkeypatch.delenv("EVALKIT_NOSUCH_PYTHON", raising=False)
    monkeypatch.setenv("EVALKIT_ENVS", str(tmp_path))
    with pytest.raises(PluginError, match=r"needs no_such_library\. Make .* evalkit env create nosuch"):
        find_interpreter("nosuch", "no_such_library")
