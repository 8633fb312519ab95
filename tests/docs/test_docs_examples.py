"""The pages' examples do what the pages say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from docs.pages import PAGES, ROOT, SNIPPET, blocks, name, run

WITH_STEPS = [page for page in PAGES if any(b.language in ("python", "bash") and not b.needs for b in blocks(page))]
CODE = [block for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("page", WITH_STEPS, ids=name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    """Every Python block and every command of a page works, from top to bottom, and prints what the page shows."""
    done = run(page, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", CODE, ids=lambda block: block.place)
def test_python_compiles(block: object) -> None:
    """Every Python block is valid, those that need a library or a model included."""
    assert ast.parse(block.text, block.place)  # type: ignore[attr-defined]


def test_snippets_name_real_files() -> None:
    """What a page includes is there."""
    for page in PAGES:
        for path in SNIPPET.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), f"{name(page)} includes {path}"
