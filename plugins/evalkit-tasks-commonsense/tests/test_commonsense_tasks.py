"""Every task asks exactly what lm-evaluation-harness 0.4.13 asks."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from evalkit.errors import DocumentError
from evalkit.plugins import get_plugins
from evalkit.requests import LoglikelihoodOutput, LoglikelihoodRequest
from evalkit.runs.plan import load_task, make_plan
from evalkit.runs.spec import RunSpec
from evalkit.tasks import MultipleChoice
from evalkit.tasks.base import checked
from evalkit.tasks.context import Context
from evalkit.tasks.metrics import Metric
from evalkit_tasks_commonsense import plugin
from evalkit_tasks_commonsense.hellaswag import HELLASWAG
from evalkit_tasks_commonsense.piqa import PIQA
from evalkit_tasks_commonsense.super_glue import BOOLQ, CB, COPA
from evalkit_tasks_commonsense.winogrande import WINOGRANDE

Doc = dict[str, Any]
Pairs = list[tuple[str, str]]

VIDEO: Doc = {
    "activity_label": "Mowing the lawn",
    "ctx_a": "A man pushes a mower.",
    "ctx_b": "then Anna",
    "endings": ["sits down.", " waves  back.", "leaves.", "sings."],
    "label": "2",
}
WIKIHOW: Doc = {
    "activity_label": "Home and Garden",
    "ctx_a": "[header] How to paint [title] Clean the wall. [step] Use soap.",
    "ctx_b": "",
    "endings": ["[substeps] Rinse it. [title] Let it dry.", "a", "b", "c"],
    "label": "0",
}
GOAL: Doc = {"goal": "To open a jar,", "sol1": "twist the lid.", "sol2": "shake the lid.", "label": 0}
BLANK: Doc = {"sentence": "Jo beat Al because _ was faster.", "option1": "Jo", "option2": "Al", "answer": "1"}
PASSAGE: Doc = {"passage": "Ice -- Ice floats.", "question": "does ice float", "label": 1}
EFFECT: Doc = {
    "premise": "It rained. ",
    "question": "effect",
    "choice1": "I got wet.",
    "choice2": "Tom ate.",
    "label": 0,
}
CAUSE: Doc = {"premise": "I got wet.", "question": "cause", "choice1": "Tom ate.", "choice2": "It rained.", "label": 1}
CLAUSE: Doc = {"premise": "She knew that he left.", "hypothesis": "he left", "label": 0}

ASKED: list[tuple[MultipleChoice, Doc, Pairs, int]] = [
    (
        HELLASWAG,
        VIDEO,
        # Capitalising also lowers the name; a pair of spaces becomes one; white space at the ends goes.
        [
            ("Mowing the lawn: A man pushes a mower. Then anna", ending)
            for ending in (" sits down.", " waves back.", " leaves.", " sings.")
        ],
        2,
    ),
    (
        HELLASWAG,
        WIKIHOW,
        [
            ("Home and Garden: How to paint. Clean the wall. Use soap.", ending)
            for ending in ("  Rinse it.. Let it dry.", " a", " b", " c")
        ],
        0,
    ),
    (
        PIQA,
        GOAL,
        [("Question: To open a jar,\nAnswer:", ending) for ending in (" twist the lid.", " shake the lid.")],
        0,
    ),
    (
        WINOGRANDE,
        BLANK,
        [("Jo beat Al because Jo", " was faster."), ("Jo beat Al because Al", " was faster.")],
        0,
    ),
    (
        BOOLQ,
        PASSAGE,
        [("Ice -- Ice floats.\nQuestion: does ice float?\nAnswer:", choice) for choice in (" no", " yes")],
        1,
    ),
    (COPA, EFFECT, [("It rained therefore", "  i got wet."), ("It rained therefore", "  tom ate.")], 0),
    (COPA, CAUSE, [("I got wet because", "  tom ate."), ("I got wet because", "  it rained.")], 1),
    (
        CB,
        CLAUSE,
        [
            ("She knew that he left.\nQuestion: he left. True, False, or Neither?\nAnswer:", choice)
            for choice in (" True", " False", " Neither")
        ],
        0,
    ),
]

# An example in the prompt: question, answer, blank line.
SHOWN: list[tuple[MultipleChoice, Doc, str]] = [
    (HELLASWAG, VIDEO, "Mowing the lawn: A man pushes a mower. Then anna leaves.\n\n"),
    (PIQA, GOAL, "Question: To open a jar,\nAnswer: twist the lid.\n\n"),
    (WINOGRANDE, BLANK, "Jo beat Al because Jo was faster.\n\n"),
    (BOOLQ, PASSAGE, "Ice -- Ice floats.\nQuestion: does ice float?\nAnswer: yes\n\n"),
    (COPA, CAUSE, "I got wet because  it rained.\n\n"),
    (CB, CLAUSE, "She knew that he left.\nQuestion: he left. True, False, or Neither?\nAnswer: True\n\n"),
]


def _pairs(task: MultipleChoice, doc: Doc) -> Pairs:
    requests = task.requests(task.prepared(doc), Context(), ())
    assert all(isinstance(request, LoglikelihoodRequest) for request in requests)
    return [(request.context, request.continuation) for request in requests]  # type: ignore[union-attr]


@pytest.mark.parametrize(("task", "doc", "pairs", "gold"), ASKED, ids=[case[0].name for case in ASKED])
def test_document_becomes_the_harness_requests(task: MultipleChoice, doc: Doc, pairs: Pairs, gold: int) -> None:
    """Contexts and continuations are the harness's to the last space, and so is the right answer."""
    assert _pairs(task, doc) == pairs
    assert task.gold_indices(task.prepared(doc)) == (gold,)


@pytest.mark.parametrize(("task", "doc", "text"), SHOWN, ids=[case[0].name for case in SHOWN])
def test_example_shows_its_right_answer(task: MultipleChoice, doc: Doc, text: str) -> None:
    """A few-shot example reads as the harness writes it."""
    context = Context(shots=(task.shot(task.prepared(doc)),), delimiter=task.fewshot_delimiter)
    assert context.render("") == text


def test_a_sentence_without_blank_is_refused() -> None:
    """Wrong data is named, not scored."""
    with pytest.raises(ValueError, match="no blank"):
        WINOGRANDE.check({**BLANK, "sentence": "Jo beat Al."})


def test_cb_f1_is_the_mean_over_three_classes() -> None:
    """A class that is never right counts as 0, and is counted."""
    f1 = next(metric for metric in CB.metrics if isinstance(metric, Metric))
    scored = []
    for label, predicted in [(0, 0), (0, 0), (1, 0), (2, 2)]:
        outputs = [LoglikelihoodOutput(logprob=float(choice == predicted)) for choice in range(3)]
        scored.append(f1.score(CB.scored({**CLAUSE, "label": label}, outputs, ())["none"]))
    assert f1.aggregate(scored) == pytest.approx((4 / 5 + 0 + 1) / 3)
    assert f1.stderr(scored) is None


@pytest.mark.parametrize("name", plugin.TASKS)
def test_every_registered_task_loads(name: str) -> None:
    """What `evalkit list-tasks` shows can be run, under the name shown."""
    assert get_plugins().tasks.owner(name) == "tasks-commonsense"
    assert load_task(name).name == name


def test_registering_reads_no_task() -> None:
    """Listing tasks imports none of them."""
    code = "import sys, evalkit_tasks_commonsense.plugin; print('evalkit.tasks' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", plugin.TASKS)
def test_real_documents_build_their_requests(name: str, data_dir: str) -> None:
    """The first 200 documents have the fields that the task reads, and a right answer among their choices."""
    spec = RunSpec(tasks=[name], engine="any", model="any", data_dir=data_dir, limit=200)
    planned = make_plan(spec).tasks[name]
    task = planned.task
    assert isinstance(task, MultipleChoice)
    asked = planned.ask(1234, None)
    assert len(asked) == min(200, planned.available)
    for item, requests in zip(planned.docs, asked, strict=True):
        assert len(requests) == len(task.choices(item.doc))
        assert len(task.gold_indices(item.doc)) == 1


@pytest.mark.parametrize(("task", "doc"), [(HELLASWAG, VIDEO), (PIQA, {}), (BOOLQ, {}), (CB, {})])
@pytest.mark.parametrize("value", [None, 7, ["text"]])
def test_no_word_stands_for_a_missing_text(task: MultipleChoice, doc: Doc, value: Any) -> None:
    """A document is refused instead of being asked about "None"."""
    for name in task.text_fields:
        texts = {**doc, **dict.fromkeys(task.text_fields, "text"), name: value}
        with pytest.raises(DocumentError, match=rf"in field '{name}' \(TypeError"):
            checked(task, 0, texts, task.check)


@pytest.mark.parametrize("name", plugin.TASKS)
def test_an_incomplete_split_is_noticed(name: str) -> None:
    """Every task says how many documents belong to the split that it evaluates."""
    task = load_task(name)
    assert isinstance(task, MultipleChoice)
    assert task.split in task.dataset.rows
