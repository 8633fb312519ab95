"""docs/hooks.md describes the hooks that there are."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docs.pages import ROOT, run, write_files

from evalkit import hookspecs

PAGE = ROOT / "docs" / "hooks.md"
HOOKS: list[Callable[..., Any]] = [
    function
    for _, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if hasattr(function, f"{hookspecs.hookspec.project_name}_spec")
]


def signature(hook: Callable[..., Any]) -> str:
    """`name(parameter, ...)`, without types."""
    return f"{hook.__name__}({', '.join(inspect.signature(hook).parameters)})"


def sections() -> dict[str, str]:
    """The text below each heading that is a signature."""
    parts = re.split(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_hook_has_a_heading() -> None:
    """The headings are the hooks' signatures: none is missing, none is made up."""
    assert HOOKS
    assert sorted(sections()) == sorted(map(signature, HOOKS))


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_is_described_in_its_own_words(hook: Callable[..., Any]) -> None:
    """A hook's docstring is the first sentence of its section, and an example follows."""
    section = sections()[signature(hook)]
    assert section.strip().startswith(inspect.getdoc(hook) or "no docstring")
    assert "```python" in section
    assert f"def {hook.__name__}(" in section


def test_the_example_plugin_has_every_hook(tmp_path: Path) -> None:
    """The page's plugin loads, with an implementation of each hook."""
    command = [sys.executable, "-m", "evalkit", "plugins", "--json"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tmp_path, env=write_files(PAGE, tmp_path)
    )
    plugin = next(p for p in json.loads(done.stdout)["plugins"] if p["name"] == "mine")
    assert plugin["error"] is None
    assert plugin["hooks"] == sorted(hook.__name__ for hook in HOOKS)


def test_the_example_plugin_is_called(tmp_path: Path) -> None:
    """A run with the page's plugin leaves what its hooks write."""
    done = run(PAGE, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers go to" in done.stdout
    assert (tmp_path / "capitals-run" / "wrong.jsonl").read_text(encoding="utf-8").count("\n") == 2
    assert json.loads((tmp_path / "capitals-run" / "summary.json").read_text(encoding="utf-8"))["errors"] == 0
