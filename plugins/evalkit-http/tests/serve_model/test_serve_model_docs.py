"""docs/serving.md says what is so: its programs run, its manifests are YAML, its table has every option."""

from __future__ import annotations

import re

import typer
import yaml
from docs.pages import ROOT, blocks

from evalkit_http.openai.command import add
from evalkit_http.openai.server import ModelServer

PAGE = ROOT / "docs" / "serving.md"


def test_the_programs_run(tiny_server: ModelServer) -> None:
    """Against a real server, in place of the one on port 8000."""
    programs = [block for block in blocks(PAGE) if block.language == "python"]
    assert len(programs) == 2
    for block in programs:
        exec(compile(block.text.replace("http://127.0.0.1:8000", tiny_server.url), block.place, "exec"), {})


def test_the_manifests_are_yaml_and_start_the_command() -> None:
    """Each of a known kind; the containers run `evalkit serve-model` with options that it has."""
    found = [item for block in blocks(PAGE) if block.language == "yaml" for item in yaml.safe_load_all(block.text)]
    assert [item["kind"] for item in found] == ["Deployment", "Service", "StatefulSet", "Service", "Service"]
    for item in found:
        for container in item["spec"].get("template", {}).get("spec", {}).get("containers", []):
            assert container["command"][:2] == ["evalkit", "serve-model"]
            assert {word for word in container["command"] if word.startswith("--")} <= options()


def test_every_option_is_described() -> None:
    """In the page's table."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `--")]
    assert {option for row in rows for option in re.findall(r"`(--[a-z-]+)", row.split("|")[1])} == options()


def options() -> set[str]:
    """The command's own options."""
    app = typer.Typer()
    add(app)
    command = typer.main.get_command(app)
    return {name for parameter in command.params for name in parameter.opts} - {
        "--help",
        "--install-completion",
        "--show-completion",
    }
