"""`evalkit data get` and `evalkit data verify` through the command line, a plugin standing in for the network."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Evalkit

HUB = """
from evalkit import TaskSpec, hookimpl
from evalkit.errors import DatasetNotFoundError
from evalkit.tasks import DatasetSpec, Perplexity

def page(name):
    return Perplexity(
        name=name, dataset=DatasetSpec(f"org/{name}", rows={"test": 2}), test_split="test", text=lambda doc: doc["text"]
    )

GATED, OPEN = page("gated"), page("open")

@hookimpl
def register_tasks(register):
    for name in ("gated", "open"):
        register(TaskSpec(name, "Pages", load=f"hub_plugin:{name.upper()}"))

@hookimpl
def open_dataset(dataset, split, data_dir):
    if data_dir is not None or not dataset.path.startswith("org/"):
        return None
    if dataset.path == "org/gated":
        raise DatasetNotFoundError("its owner asks for consent")
    return [{"text": "a"}, {"text": "b"}]
"""


@pytest.fixture
def hub(plugin: Callable[[str, str], Path]) -> dict[str, str]:
    """Variables with which two tasks are installed, and what their data sets hold; one of these asks for consent."""
    return {"PYTHONPATH": str(plugin("hub", HUB))}


def test_one_gated_data_set_keeps_no_other_back(evalkit: Evalkit, hub: dict[str, str], tmp_path: Path) -> None:
    """The others are fetched; the missing one is named in the end, with status 1."""
    done = evalkit("data", "get", "gated", "open", "--data-dir", "mirror", **hub)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [
        "org/gated, test: failed: its owner asks for consent",
        "org/open, test: 2 documents",
    ]
    assert done.stderr == "error: 1 missing, for the reasons above: org/gated, test\n"
    with gzip.open(tmp_path / "mirror/org/open/default/test.jsonl.gz") as file:
        assert [json.loads(line) for line in file] == [{"text": "a"}, {"text": "b"}]


def test_a_whole_mirror_is_status_0(evalkit: Evalkit, hub: dict[str, str], tmp_path: Path) -> None:
    """Fetched, fetched again and verified, all of it or what a task needs."""
    words = ("open", "--data-dir", "mirror")
    fetched = [evalkit("data", "get", *words, **hub) for _ in range(2)]
    assert [done.stdout.splitlines()[0] for done in fetched] == [
        "org/open, test: 2 documents",
        "org/open, test: already there",
    ]
    verified = [evalkit("data", "verify", *words[start:], "--json", **hub) for start in (0, 1)]
    assert [done.returncode for done in (*fetched, *verified)] == [0] * 4
    assert [json.loads(done.stdout)[0]["state"] for done in verified] == ["ok"] * 2


def test_verify_names_what_is_missing_or_damaged(evalkit: Evalkit, hub: dict[str, str], tmp_path: Path) -> None:
    """Status 1, and which file; a mirror without a manifest is one line with the next command."""
    words = ("--data-dir", "mirror")
    evalkit("data", "get", "open", *words, **hub)
    missing = evalkit("data", "verify", "gated", *words, "--json", **hub)
    assert (missing.returncode, json.loads(missing.stdout)[0]["state"]) == (1, "missing")
    (tmp_path / "mirror/org/open/default/test.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    damaged = evalkit("data", "verify", *words, **hub)
    assert damaged.returncode == 1
    assert "changed since it was fetched" in damaged.stdout
    empty = evalkit("data", "verify", "--data-dir", "nowhere", **hub)
    assert empty.returncode == 2
    assert "evalkit data get" in empty.stderr
