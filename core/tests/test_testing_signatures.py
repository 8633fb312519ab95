"""Records of a library's API, compared with its source and with a double of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.testing.signatures import Record, differences, installed, missing

SOURCE = '''
"""A library that cannot be imported."""
import nothing_of_that_name


class Engine:
    size: int = 0

    def __init__(self, path, *, device=None, **others):
        self.loop = None
        self.ready: bool = True

    @property
    def name(self):
        return "engine"

    async def answer(self, prompt, /, stop=None, *, stream=False):
        return {"text": prompt, "meta": {}}


def load(path):
    return Engine(path)
'''
RECORD = {
    "functions": {"lib.engine:Engine.answer": ["prompt", "stop", "stream"], "lib.engine:load": ["path"]},
    "fields": {"lib.engine:Engine": ["size", "loop", "ready", "name"], "lib": ["size"]},
    "words": {"lib.engine": ["text", "meta"]},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    folder.joinpath("__init__.py").touch()
    folder.joinpath("engine.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def record(**changes: dict[str, list[str]]) -> Record:
    return Record("lib", "1", "a test", **{**RECORD, **changes})


def test_what_is_there_is_found_without_importing_it(root: Path) -> None:
    """Parameters of any kind, fields, properties, attributes that methods set, and words."""
    assert missing(root, record()) == []
    assert not any(name.partition(".")[0] == "lib" for name in sys.modules)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"functions": {"lib.engine:Engine.answer": ["seed"]}}, "lib.engine:Engine.answer has no parameter seed"),
        ({"functions": {"lib.engine:Engine.ask": []}}, "lib.engine:Engine.ask is not there"),
        ({"functions": {"lib.other:load": []}}, "lib.other:load is not there"),
        ({"fields": {"lib.engine:Engine": ["height"]}}, "lib.engine:Engine has no field height"),
        ({"fields": {"lib": ["height"]}}, "lib has no field height"),
        ({"words": {"lib.engine": ["texts"]}}, "lib.engine has no word texts"),
    ],
)
def test_what_is_not_there_is_named(root: Path, changes: dict[str, dict[str, list[str]]], line: str) -> None:
    """Each difference is a line of its own."""
    assert missing(root, record(**changes)) == [line]


def test_a_double_has_exactly_what_is_recorded() -> None:
    """A parameter too few, and one too many, are both named."""

    def answer(prompt: str, seed: int) -> None: ...

    assert differences(answer, ["prompt", "seed"]) == []
    lines = differences(answer, ["prompt", "stop"])
    assert [line.partition(" ")[2] for line in lines] == ["lacks stop", "has seed, which is not recorded"]


def test_installed_packages_are_found() -> None:
    """The folder that holds a package, or nothing."""
    found = installed("evalkit")
    assert found is not None
    assert (found / "evalkit" / "testing" / "signatures.py").is_file()
    assert installed("nosuchlibrary") is None


def test_the_command_fails_where_something_is_missing(root: Path, tmp_path: Path) -> None:
    """Its status is 1, and stderr says what is missing."""
    file = tmp_path / "api.json"
    for words, status in (("[]", 0), ('["nosuch"]', 1)):
        text = f'{{"library": "lib", "version": "1", "source": "", "functions": {{"lib.engine:load": {words}}}}}'
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "evalkit.testing.signatures", str(file), str(root)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == status
        assert ("no parameter nosuch" in done.stderr) == bool(status)
