"""Comparing runs: each difference is that of the documents, and what is not comparable is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import RunError
from evalkit.results import RunResult
from evalkit.runs.compare import compare_runs, corrected
from evalkit.runs.compare_row import Row


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are named by their folders here."""
    monkeypatch.chdir(tmp_path)


def compared(*results: RunResult, **options: Any) -> tuple[dict[str, Row], list[str]]:
    rows, remarks = compare_runs([(Path(r.run_dir).name, Path(r.run_dir)) for r in results], **options)
    return {f"{row.task}/{row.metric},{row.filter}": row for row in rows}, remarks


def rewrite(result: RunResult, task: str, **by_metric: list[float]) -> None:
    """Give a run's documents other values, and the result their mean."""
    path = Path(result.run_dir) / f"samples_{task}.jsonl"
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text]
    changed = [{**row, **{name: values[row["doc_id"]] for name, values in by_metric.items()}} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    found = Path(result.run_dir) / "results.json"
    document = json.loads(found.read_text(encoding="utf-8"))
    for name, values in by_metric.items():
        document["results"][task][f"{name},none"] = sum(values) / len(values)
    document.pop("sample_files", None)
    found.write_text(json.dumps(document), encoding="utf-8")


def change(result: RunResult, **fields: Any) -> None:
    """Replace what results.json says."""
    path = Path(result.run_dir) / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


def test_differences_by_hand(toy: Any) -> None:
    """Two documents got better and one worse: the difference, McNemar's p-value, and which ones they are."""
    first, second = toy.run("toy_choice", output="a"), toy.run("toy_choice", output="b")
    rewrite(first, "toy_choice", acc=[0.0, 0.0, 1.0, 1.0], acc_norm=[0.5, 0.25, 0.0, 1.0])
    rewrite(second, "toy_choice", acc=[1.0, 1.0, 0.0, 1.0], acc_norm=[0.5, 0.5, 0.5, 0.5])
    rows, remarks = compared(first, second)
    row = rows["toy_choice/acc,none"]
    assert (row.baseline, row.value, row.difference) == (0.5, 0.75, 0.25)
    assert (row.better, row.worse, row.documents, row.test) == ((0, 1), (2,), 4, "McNemar")
    assert row.p_value == 1.0
    other = rows["toy_choice/acc_norm,none"]
    assert (other.test, other.difference) == ("permutation", 0.0625)
    assert other.interval is not None
    assert other.interval[0] < 0.0625 < other.interval[1]
    assert remarks == []
    assert row.to_dict()["worse"] == {"count": 1, "doc_ids": [2]}


def test_a_run_equals_itself(toy: Any) -> None:
    """Every kind of metric has a row, and none a difference; Holm counts all rows."""
    first, second = toy.run(output="a"), toy.run(output="b")
    rows, _ = compared(first, second)
    names = {name.partition("/")[2] for name in rows}
    assert {"acc,none", "acc_norm,none", "exact_match,none", "exact_match,small", "perplexity,none"} <= names
    assert {"word_perplexity,none", "bits_per_byte,none"} <= names
    assert all((row.difference, row.p_value, row.corrected) == (0.0, 1.0, 1.0) for row in rows.values())
    assert all(row.baseline == first.results[row.task][f"{row.metric},{row.filter}"] for row in rows.values())


def test_less_perplexity_is_better(toy: Any) -> None:
    """Where lower is better, a loss is a rise."""
    first, second = toy.run("toy_target", output="a"), toy.run("toy_target", output="b")
    text = (Path(second.run_dir) / "samples_toy_target.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    lower = [{**row, "perplexity": row["perplexity"] - 0.5} for row in rows]
    (Path(second.run_dir) / "samples_toy_target.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in lower), encoding="utf-8"
    )
    row = compared(first, second)[0]["toy_target/perplexity,none"]
    assert row.difference > 0
    assert row.loss == row.difference
    assert (row.worse, row.better) == ((0, 1, 2, 3), ())


def test_clusters_flip_together(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's clusters are in its samples, its results, and in the comparison."""
    task = replace(toy.module.CHOICE, cluster=lambda doc: doc["answer"])
    monkeypatch.setattr(toy.module, "CHOICE", task)
    first, second = toy.run("toy_choice", output="a"), toy.run("toy_choice", output="b")
    assert [row["cluster"] for row in toy.samples(first, "toy_choice")] == [0, 1, 2, 0]
    assert set(first.details["clustered_stderr"]["toy_choice"]) == {"acc,none", "acc_norm,none"}
    assert compared(first, second)[0]["toy_choice/acc,none"].test == "permutation"


def test_a_group_is_compared_by_all_documents_of_its_tasks(toy: Any) -> None:
    """Its values are weighted means, McNemar's test counts the changes in all tasks, and its tasks become details."""
    first, second = (toy.run("toy", "toy_choice", output=name) for name in ("a", "b"))
    rewrite(first, "toy_choice", acc=[0.0, 0.0, 1.0, 1.0])
    rewrite(second, "toy_choice", acc=[1.0, 1.0, 1.0, 1.0])
    rewrite(first, "toy_target", acc=[0.0, 0.0, 0.0, 1.0])
    rewrite(second, "toy_target", acc=[1.0, 0.0, 0.0, 0.0])
    rows, _ = compared(first, second)
    group = rows["toy/acc,none"]
    assert (group.baseline, group.value, group.difference) == (0.375, 0.625, 0.25)
    assert (group.documents, group.lost, group.won, group.test) == (8, 1, 3, "McNemar")
    assert group.p_value == pytest.approx(0.625)
    assert [part.task for part in group.parts] == ["toy_choice", "toy_target"]
    assert group.to_dict()["worse"] == {"count": 1, "doc_ids": []}
    details = {row.task for row in rows.values() if row.detail}
    assert details == {"toy_choice", "toy_target"}
    assert rows["toy/acc,none"].corrected == 1


def test_tasks_of_a_group_may_count_the_same(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unweighted group is the mean of its tasks' scores, whatever their sizes; the other run need not name it."""
    monkeypatch.setattr(toy.module, "TOY", replace(toy.module.TOY, weighted=False))
    first, second = toy.run("toy", output="a"), toy.run(*toy.module.TOY.tasks, output="b")
    assert "acc,none" in first.results["toy"]
    assert "toy" not in second.results
    row = compared(first, second)[0]["toy/acc,none"]
    assert row.baseline == pytest.approx(first.results["toy"]["acc,none"])


def test_a_group_that_is_another_one_is_left_out(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks, or other weights, make another number; so may those that an older evalkit did not write down."""
    first = toy.run("toy", output="a")
    monkeypatch.setattr(toy.module, "TOY", replace(toy.module.TOY, weighted=False))
    second = toy.run("toy", output="b")
    assert compared(first, second)[1] == ["toy not compared: b weighs its tasks in another way"]
    monkeypatch.setattr(toy.module, "TOY", replace(toy.module.TOY, tasks=("toy_choice",)))
    third = toy.run("toy", *toy.module.TASKS, output="c")
    assert "toy not compared: it has other tasks in c" in compared(first, third)[1]
    change(first, group_weighted={})
    assert compared(first, second)[1] == [
        "toy not compared: a, of an older evalkit, does not say how it weighs its tasks"
    ]


def test_holm_counts_claims_and_details_apart() -> None:
    """Tasks within a group do not weaken the group's claim; all runs count together."""
    base = Row("b", "task", "acc", "none", True, 10, 0.0, 0.0, 0.0)
    pairs = [(0.01, False), (0.02, False), (0.001, True), (None, False), (0.3, True)]
    rows = corrected([replace(base, p_value=value, detail=detail) for value, detail in pairs])
    assert [row.corrected for row in rows] == [0.02, 0.02, 0.002, None, 0.3]


def test_a_hopeless_perplexity_is_compared(toy: Any) -> None:
    """Infinite in one run or in both: there is a row without statistics, and the documents that changed."""
    first, second = toy.run("toy_target", output="a"), toy.run("toy_target", output="b")
    rewrite(second, "toy_target", perplexity=[-1.0, -float("inf"), -1.0, -float("inf")])
    change(second, results={"toy_target": {"perplexity,none": float("inf")}})
    rewrite(first, "toy_target", perplexity=[-1.0, -float("inf"), -1.0, -1.0])
    change(first, results={"toy_target": {"perplexity,none": float("inf")}})
    row = compared(first, second)[0]["toy_target/perplexity,none"]
    assert (row.p_value, row.interval, row.worse, row.better) == (None, None, (3,), ())


def test_a_mean_by_coincidence_is_none(toy: Any) -> None:
    """Where only one run's number is the mean of its values, the metric is not one: its task says how it is made."""
    first, second = toy.run("toy_target", output="a"), toy.run("toy_target", output="b")
    values = first.results["toy_target"]["perplexity,none"]
    rewrite(first, "toy_target", perplexity=[values] * 4)
    row = compared(first, second)[0]["toy_target/perplexity,none"]
    assert row.value == second.results["toy_target"]["perplexity,none"]


def test_documents_without_a_cluster_are_compared(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may know the cluster of some documents only."""
    monkeypatch.setattr(toy.module, "CHOICE", replace(toy.module.CHOICE, cluster=lambda doc: doc["answer"] or None))
    first, second = toy.run("toy_choice", output="a"), toy.run("toy_choice", output="b")
    assert compared(first, second)[0]["toy_choice/acc,none"].documents == 4


def test_intervals_stand_beside_the_scores(toy: Any) -> None:
    """results.json has the interval of every score, groups included, and a resumed run shows them again."""
    result = toy.run(output="a")
    stored = json.loads((Path(result.run_dir) / "results.json").read_text(encoding="utf-8"))
    assert stored["intervals"] == result.details["intervals"]
    for task, row in result.results.items():
        for key in (key for key in row if "_stderr," not in key):
            low, high = stored["intervals"][task][key]
            assert low <= row[key] <= high
    assert RunResult.from_dict(stored).details["intervals"] == stored["intervals"]


def test_other_documents_are_refused(toy: Any) -> None:
    """Changed data is named by its first document; another number of documents by both numbers."""
    first = toy.run("toy_choice", output="a")
    with pytest.raises(RunError, match=r"4 documents in a and 2 in b\. Run both with the same --limit"):
        compared(first, toy.run("toy_choice", output="b", limit=2))
    documents = [row["doc"] for row in toy.samples(first, "toy_choice")]
    toy.write("test", [{**doc, "answer": 0} for doc in documents])
    with pytest.raises(RunError, match=r"document 1 is another one in c than in a"):
        compared(first, toy.run("toy_choice", output="c"))


def test_other_prompts_are_refused(toy: Any) -> None:
    """Other examples make other prompts; --any-prompts allows it."""
    first, second = (
        toy.run("toy_choice", output="a"),
        toy.run("toy_choice", output="b", num_fewshot=0),
    )
    with pytest.raises(RunError, match=r"prompt of document 0 .* --any-prompts"):
        compared(first, second)
    assert compared(first, second, any_prompts=True)[0]


def test_other_versions_are_refused(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that was changed since is named with both versions."""
    first = toy.run("toy_choice", output="a")
    monkeypatch.setattr(toy.module, "CHOICE", replace(toy.module.CHOICE, version="2.0"))
    with pytest.raises(RunError, match=r"toy_choice is version 1\.0 in a and 2\.0 in b"):
        compared(first, toy.run("toy_choice", output="b"))


def test_missing_tasks_are_told_or_refused(toy: Any) -> None:
    """What only one run has is left out and said; a strict comparison wants all of the baseline."""
    first, second = (
        toy.run("toy_choice", "toy_target", output="a"),
        toy.run("toy_choice", "toy_pages", output="b"),
    )
    rows, remarks = compared(first, second)
    assert {row.task for row in rows.values()} == {"toy_choice"}
    assert remarks == ["toy_target not compared: not in b", "toy_pages not compared: not in a"]
    with pytest.raises(RunError, match=r"run b lacks toy_target of a"):
        compared(first, second, strict=True)
    with pytest.raises(RunError, match=r"lacks toy_choice, toy_target of a"):
        compared(first, toy.run("toy_pages", output="c"))


def test_failed_documents_are_left_out(toy: Any) -> None:
    """A document that one run could not answer counts in neither."""
    first = toy.run("toy_choice", output="a")
    toy.tape.fails_on = "1 + 1?"
    rows, remarks = compared(first, toy.run("toy_choice", output="b"))
    assert rows["toy_choice/acc,none"].documents == 3
    assert remarks == ["toy_choice: 1 documents not compared because they have no score in both runs (b)"]
    toy.tape.fails_on = "+"
    broken = toy.run("toy_choice", output="c")
    with pytest.raises(RunError, match="no acc,none in c to compare"):
        compared(first, broken, strict=True)


def test_unfinished_runs_are_refused(toy: Any) -> None:
    """The message gives the command that completes it."""
    first = toy.run("toy_choice", output="a")
    toy.tape.crash_after = len(toy.tape.answered) + 2
    with pytest.raises(RuntimeError):
        toy.run("toy_target", output="b")
    with pytest.raises(RunError, match=r"run b is not finished\. Complete it with: evalkit resume"):
        compare_runs([("a", Path(first.run_dir)), ("b", toy.path / "b")])
