"""From answers to numbers: a failed request is never a wrong answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from evalkit.errors import MissingDependencyError
from evalkit.requests import GenerationOutput, LoglikelihoodOutput, Output
from evalkit.runs.plan import Plan, PlannedDoc, PlannedTask
from evalkit.runs.score import NO_STDERR, Tally, group_rows, samples
from evalkit.tasks import DatasetSpec, Generate, Group, Loglikelihood, Metric, MultipleChoice, Task, lowercase
from evalkit.tasks.metrics import BUILT_IN

METRICS = {metric.name: metric for metric in BUILT_IN}
DATA = DatasetSpec("toy/facts")
CHOICE = MultipleChoice(
    name="choice", dataset=DATA, test_split="test", choices=lambda doc: doc["choices"], gold=lambda doc: doc["gold"]
)
TARGET = Loglikelihood(
    name="target", dataset=DATA, test_split="test", prompt=lambda doc: doc["q"], answer=lambda doc: "a"
)
TEXT = Generate(
    name="text",
    dataset=DATA,
    test_split="test",
    prompt=lambda doc: doc["q"],
    answer=lambda doc: "yes",
    filters={"raw": (), "small": (lowercase,)},
)


def _planned(task: Task, *docs: dict[str, Any]) -> PlannedTask:
    metrics = tuple(metric if isinstance(metric, Metric) else METRICS[metric] for metric in task.metrics)
    return PlannedTask(task, metrics, tuple(PlannedDoc(n, doc, ()) for n, doc in enumerate(docs)), 0, len(docs))


def _tally(planned: PlannedTask, answer: Callable[[int, int], Output]) -> tuple[Tally, list[Any]]:
    """Score with `answer(document, request)`; the tally and its samples."""
    asked = planned.ask(1, None)
    outputs = {key: answer(d, r) for d, doc in enumerate(asked) for r, (key, _) in enumerate(doc)}
    tally = Tally(planned)
    found = list(samples(planned, asked, outputs))
    for sample in found:
        tally.add(sample)
    return tally, found


def test_answers_meet_their_documents() -> None:
    """Each document is scored on its own answers, in document order."""
    planned = _planned(CHOICE, *({"choices": [f"{n}a", f"{n}b"], "gold": n % 2} for n in range(4)))
    tally, found = _tally(planned, lambda doc, request: LoglikelihoodOutput(-1.0 if request == (doc > 1) else -2.0))
    # The model takes choice 0 of documents 0 and 1, and choice 1 of documents 2 and 3.
    assert [sample.values["acc"] for sample in found] == [1.0, 0.0, 0.0, 1.0]
    assert [(sample.task, sample.doc_id, sample.target) for sample in found] == [("choice", n, n % 2) for n in range(4)]
    assert [sample.filtered for sample in found][::3] == [[-1.0, -2.0], [-2.0, -1.0]]
    assert tally.row()["acc,none"] == 0.5
    assert tally.row()["acc_stderr,none"] == pytest.approx(math.sqrt(0.25 / 3))


def test_a_failed_request_is_not_a_wrong_answer() -> None:
    """A document of which any request failed has no value; the others make the score."""
    planned = _planned(CHOICE, *({"choices": [f"{n}a", f"{n}b"], "gold": 0} for n in range(3)))

    def answer(doc: int, request: int) -> Output:
        failed = (doc, request) == (1, 1)
        return LoglikelihoodOutput(error="too long") if failed else LoglikelihoodOutput(-1.0 - request)

    tally, found = _tally(planned, answer)
    assert [sample.error for sample in found] == [None, "too long", None]
    assert (found[1].values, found[1].filtered) == ({}, None)
    assert tally.row()["acc,none"] == 1.0
    assert tally.failed == 1


def test_a_task_of_failures_has_no_number() -> None:
    """No score is better than a wrong one."""
    tally, _ = _tally(_planned(TARGET, {"q": "1"}, {"q": "2"}), lambda *_: LoglikelihoodOutput(error="down"))
    assert (tally.row(), tally.failed) == ({}, 2)


def test_every_filter_has_numbers_of_its_own() -> None:
    """One document makes a sample for each filter; the row has a key for each."""
    planned = _planned(TEXT, {"q": "1"}, {"q": "2"})
    tally, found = _tally(planned, lambda doc, _: GenerationOutput(["yes", "YES"][doc]))
    assert [(sample.doc_id, sample.filter, sample.filtered) for sample in found] == [
        (0, "raw", ["yes"]),
        (0, "small", ["yes"]),
        (1, "raw", ["YES"]),
        (1, "small", ["yes"]),
    ]
    assert (tally.row()["exact_match,raw"], tally.row()["exact_match,small"]) == (0.5, 1.0)
    assert list(tally.row()) == [f"exact_match{end},{name}" for name in ("raw", "small") for end in ("", "_stderr")]


def test_a_number_without_error_says_so() -> None:
    """The harness writes "N/A" where there is no standard error."""
    tally, _ = _tally(_planned(TARGET, {"q": "1"}), lambda *_: LoglikelihoodOutput(-1.0, True))
    assert tally.row() == {
        "perplexity,none": pytest.approx(math.e),
        "perplexity_stderr,none": NO_STDERR,
        "acc,none": 1.0,
        "acc_stderr,none": NO_STDERR,
    }


def test_notes_count_documents_by_kind() -> None:
    """Numbers in a note do not make kinds of their own, and a document counts once, however many filters it has."""
    planned = _planned(TEXT, *({"q": str(n)} for n in range(3)))
    tally, _ = _tally(planned, lambda doc, _: GenerationOutput("", notes=(f"truncated: {doc} tokens",) if doc else ()))
    assert tally.notes == {"truncated": 2}


def _group(metrics: tuple[str, ...], *leaves: str) -> Plan:
    return Plan({}, {"all": (Group("all", leaves, metrics), leaves)})


ROWS: dict[str, dict[str, Any]] = {
    "one": {"acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.3, "acc_norm_stderr,none": 0.2},
    "two": {"acc,none": 1.0, "acc_stderr,none": 0.2},
    "single": {"acc,none": 0.0, "acc_stderr,none": NO_STDERR},
    "failed": {},
}
SIZES = {"one": 30, "two": 10, "single": 1, "failed": 0}


def test_a_group_weights_its_tasks_by_documents() -> None:
    """The number of a group is that of all its documents, with the pooled error."""
    row = group_rows(_group(("acc",), "one", "two"), ROWS, SIZES)["all"]
    pooled = math.sqrt((29 * 0.1**2 * 30 + 9 * 0.2**2 * 10) / (40 - 2) / 40)
    assert row == {"acc,none": pytest.approx((0.5 * 30 + 1.0 * 10) / 40), "acc_stderr,none": pytest.approx(pooled)}


def test_a_group_takes_the_tasks_that_have_its_metric() -> None:
    """A metric of one task only is that task's; tasks without a number count for nothing."""
    row = group_rows(_group(("acc_norm", "acc"), "one", "two", "failed"), ROWS, SIZES)["all"]
    assert row["acc_norm,none"] == pytest.approx(0.3)
    assert row["acc,none"] == pytest.approx(0.625)


def test_a_group_may_count_one_filter_only() -> None:
    """A metric under a named filter; the stricter one is left out."""
    rows = {"one": {f"{name},{key}": 0.5 for key in ("strict", "loose") for name in ("acc", "acc_stderr")}}
    assert set(group_rows(_group(("acc,loose",), "one"), rows, SIZES)["all"]) == {"acc,loose", "acc_stderr,loose"}


def test_an_unweighted_group_takes_its_tasks_as_equals() -> None:
    """Each task counts the same, whatever its size, and so do their errors."""
    plan = Plan({}, {"all": (Group("all", ("one", "two"), ("acc",), weighted=False), ("one", "two"))})
    row = group_rows(plan, ROWS, SIZES)["all"]
    assert row == {"acc,none": 0.75, "acc_stderr,none": pytest.approx(math.hypot(0.1, 0.2) / 2)}


def test_an_unknown_error_makes_the_groups_unknown() -> None:
    """One task without an error: the group's number stands, its error is not guessed."""
    row = group_rows(_group(("acc",), "one", "single"), ROWS, SIZES)["all"]
    assert row["acc,none"] == pytest.approx(15 / 31)
    assert row["acc_stderr,none"] == NO_STDERR


@pytest.mark.parametrize(("metrics", "leaves"), [((), ("one",)), (("acc",), ("failed",)), (("f1",), ("one", "two"))])
def test_a_group_without_numbers_has_no_row(metrics: tuple[str, ...], leaves: tuple[str, ...]) -> None:
    """A group that only lists tasks, or whose tasks all failed, is left out."""
    assert group_rows(_group(metrics, *leaves), ROWS, SIZES) == {}


# ── answers that cannot be judged ───────────────────────────────────────────────────────────────────────────
def test_answers_that_cannot_be_judged_are_their_documents_affair() -> None:
    """An error of the task's own code names task and document, and the others are scored."""
    judged = replace(TEXT, judge=lambda doc, texts: [doc["key"] for _ in texts], filters={"raw": ()})
    tally, found = _tally(_planned(judged, {"q": "1"}, {"q": "2", "key": 1}), lambda *_: GenerationOutput("yes"))
    assert "task 'text': the answers to document 0 of split 'test' cannot be judged (KeyError" in str(found[0].error)
    assert (found[0].values, found[1].values) == ({}, {"exact_match": 1.0})
    assert (tally.failed, tally.unusable, tally.fault) == (1, 1, found[0].error)


def test_a_missing_library_is_no_documents_affair() -> None:
    """It ends scoring: every document would fail on it."""

    def judge(doc: Any, texts: Any) -> Any:
        raise MissingDependencyError("install it")

    with pytest.raises(MissingDependencyError):
        _tally(_planned(replace(TEXT, judge=judge), {"q": "1"}), lambda *_: GenerationOutput("yes"))
