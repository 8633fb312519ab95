"""Commands in the documents are commands that there are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from docs.pages import GUIDES, PAGES, PLUGIN_READMES, ROOT, Command, blocks, commands, name, prose

from evalkit.cli.main import build_app

DOCUMENTS = [*GUIDES, *PAGES, *PLUGIN_READMES]
# What runs on its own page may use commands of the page's own plugin.
SHOWN = [
    command
    for page in DOCUMENTS
    for block in blocks(page)
    if block.language in ("bash", "") and (page not in PAGES or block.needs)
    for command in commands(block)
]
INLINE = [(page, words) for page in DOCUMENTS for words in re.findall(r"`evalkit ([^`]+)`", prose(page))]


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """The parsers of all commands."""
    parsers: dict[str, Any] = getattr(typer.main.get_command(build_app()), "commands")  # noqa: B009
    return parsers


def sessions() -> set[str]:
    """The sessions that noxfile.py defines."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return {f.name for f in functions if any("nox.session" in ast.unparse(d) for d in f.decorator_list)}


def test_cli_page_equals_help() -> None:
    """docs/cli.md holds the `--help` of every command; if not: python tests/docs/update_cli.py"""
    script = Path(__file__).with_name("update_cli.py")
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_environment_variables_are_described() -> None:
    """Every variable that the code reads is on the page, and no other."""
    sources = [*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
    read = {v for path in sources for v in re.findall(r"\bEVALKIT_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(EVALKIT_[A-Z_]+)`", page, re.M)) == read


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: f"{command.place}-{command.words[0]}")
def test_shown_commands_are_accepted(command: Command, known: dict[str, Any]) -> None:
    """A shown `evalkit` command parses, and what pip is to install is there."""
    program, *words = command.words
    if program == "evalkit" and words[0] != "--help":
        assert words[0] in known, f"there is no command {words[0]!r}"
        known[words[0]].make_context(words[0], [word for word in words[1:] if word != "--help"])
    elif program == "pip":
        for path in (words[i + 1] for i, word in enumerate(words) if word == "-e"):
            assert (ROOT / path.partition("[")[0] / "pyproject.toml").is_file(), path


@pytest.mark.parametrize(("page", "words"), INLINE, ids=lambda value: name(value) if isinstance(value, Path) else value)
def test_mentioned_commands_exist(page: Path, words: str, known: dict[str, Any]) -> None:
    """A command named in a sentence exists, with its options."""
    command, *rest = words.split()
    if command.startswith("-"):
        return
    assert command in known, f"{name(page)} names `evalkit {words}`"
    options = {option for parameter in known[command].params for option in (*parameter.opts, "--help")}
    assert {word for word in rest if word.startswith("--")} <= options


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_named_sessions_exist(page: Path) -> None:
    """Every session that a document tells to run is one of noxfile.py."""
    named = set(re.findall(r"noxfile\.py -s (\S+?)[`\s]", page.read_text(encoding="utf-8")))
    assert named <= sessions()
    assert named or page.name != "README.md" or page.parent != ROOT


def test_contributors_are_told_every_session() -> None:
    """CONTRIBUTING.md lists the sessions of noxfile.py, and so does noxfile.py's own docstring."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", guide, re.M)) == sessions()
    doc = ast.get_docstring(ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))) or ""
    assert set(re.findall(r"^(\w+)  ", doc, re.M)) == sessions()
