"""`evalkit compare` and `evalkit power` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

from support import FAKE, Evalkit


def spoil(path: Path, task: str, metric: str) -> None:
    """Make every answer of a run wrong."""
    samples, results = path / f"samples_{task}.jsonl", path / "results.json"
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").split("\n") if line]
    samples.write_text("".join(json.dumps({**row, metric: 0.0}) + "\n" for row in rows), encoding="utf-8")
    document = json.loads(results.read_text(encoding="utf-8"))
    document["results"][task][f"{metric},none"] = 0.0
    results.write_text(json.dumps(document), encoding="utf-8")


def test_compare_is_a_gate(evalkit: Evalkit, tmp_path: Path) -> None:
    """Equal runs pass; where a metric is worse by more than the margin, the exit status is 1 and the metric named."""
    for name in ("before", "after"):
        assert evalkit("run", "starter_questions", *FAKE, "--limit", "20", "--output", name).returncode == 0
    done = evalkit("compare", "before", "after", "--fail-if-worse", "0.01", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["baseline"] == "before"
    assert [row["metric"] for row in found["rows"]] == ["acc,none", "acc_norm,none"]
    assert all(row["difference"] == 0 and row["p_value"] == 1 for row in found["rows"])
    spoil(tmp_path / "after", "starter_questions", "acc")
    done = evalkit("compare", "before", "after", "--fail-if-worse", "0.01")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"after: starter_questions acc is worse by {found['rows'][0]['baseline']:.4f}"]
    assert "starter_questions, acc: worse on document" in done.stdout
    assert evalkit("compare", "before", "after").returncode == 0
    assert evalkit("compare", "before", "after", "--fail-if-worse", "1").returncode == 0
    assert evalkit("compare", "after", "before", "--fail-if-worse", "0").returncode == 0


def test_compare_shows_what_changed(evalkit: Evalkit, tmp_path: Path) -> None:
    """Each run has its table, marked where more than chance is at work, and the first documents that changed."""
    for name in ("before", "after", "third"):
        evalkit("run", "starter_questions", *FAKE, "--limit", "60", "--output", name)
    spoil(tmp_path / "after", "starter_questions", "acc")
    text = evalkit("compare", "before", "after", "third").stdout
    assert text.index("after, compared with before:") < text.index("third, compared with before:")
    assert text.count("▼") == 2
    assert text.count(": worse on document ") == 3
    example = text.partition(": worse on document ")[2].splitlines()
    assert [line.split()[0] for line in example[1:5]] == ["question", "right", "before", "after"]
    assert "Question: " in example[1]
    plain = evalkit("compare", "before", "after", "--examples", "0", "--wide").stdout
    assert "on document" not in plain
    assert plain.splitlines()[2].split()[-4:] == ["p", "test", "detectable", "documents"]
    rows = json.loads(evalkit("compare", "before", "after", "--examples", "1", "--json").stdout)["rows"]
    (found,) = rows[0]["examples"]
    assert (found["task"], found["change"], rows[0]["verdict"]) == ("starter_questions", "worse", "worse")
    assert found["target"]
    assert rows[1]["examples"] == []


def test_bad_comparisons_get_one_line(evalkit: Evalkit) -> None:
    """One run only, no such run, a margin that is none, other limits: status 2 and one line."""
    for name, limit in (("a", 4), ("b", 6)):
        evalkit("run", "starter_arithmetic", *FAKE, "--limit", limit, "--output", name)
    for words, part in (
        (("a",), "two runs or more"),
        (("a", "nosuch"), "no run 'nosuch'"),
        (("a", "b"), "4 documents in a and 6 in b"),
        (("a", "a", "--fail-if-worse", "-1"), "--fail-if-worse is a difference of 0 or more"),
    ):
        done = evalkit("compare", *words)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert part in done.stderr


def test_power_counts_documents(evalkit: Evalkit) -> None:
    """What a claim needs, beside what the task has; without its data, only what it needs."""
    found = json.loads(evalkit("power", "starter_questions", "--delta", "0.02", "--json").stdout)
    assert (found["needed"], found["available"], found["enough"]) == (4902, 216, False)
    done = evalkit("power", "starter_questions", "--delta", "0.2", "--correlation", "0.6")
    assert "enough" in done.stdout
    unknown = evalkit("power", "hellaswag", "--delta", "0.02")
    assert "documents unknown" in unknown.stdout
    refused = evalkit("power", "starter_questions", "--delta", "0.6")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
