"""The starter tasks run anywhere: their data is shipped, sound, and becomes the prompts that are promised."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import pytest

from evalkit.plugins import get_plugins
from evalkit.requests import GenerationOutput, GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.runs.plan import Plan, load_task, make_plan
from evalkit.runs.spec import RunSpec
from evalkit.tasks import Group, Metric
from evalkit_tasks_starter import plugin, tasks

DATA = resources.files("evalkit_tasks_starter") / "data"
FILES = ("arithmetic", "arithmetic_fewshot", "prose", "questions", "questions_fewshot")


def _file(name: str) -> Traversable:
    return DATA / f"{name}.jsonl"


def _docs(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _file(name).read_text(encoding="utf-8").split("\n") if line]


def _plan(**options: Any) -> Plan:
    return make_plan(RunSpec(tasks=["starter"], engine="any", model="any", **options))


def _asked(name: str, **options: Any) -> list[list[Any]]:
    return [[a.request for a in asked] for asked in _plan(**options).tasks[name].ask(1234, None)]


def test_every_registered_name_loads() -> None:
    """What `evalkit list-tasks` shows can be run, under the name shown."""
    for name in plugin.TASKS:
        assert get_plugins().tasks.owner(name) == "tasks-starter"
        assert load_task(name).name == name


def test_registering_reads_no_task() -> None:
    """Listing tasks neither builds them nor touches their data."""
    code = "import sys, evalkit_tasks_starter.plugin; print('evalkit_tasks_starter.tasks' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_group_holds_all_tasks() -> None:
    """`evalkit run starter` runs a task of each kind."""
    group = load_task("starter")
    assert isinstance(group, Group)
    assert {*group.tasks, group.name} == set(plugin.TASKS)


@pytest.mark.parametrize("name", FILES)
def test_data_is_shipped_as_plain_utf8(name: str) -> None:
    """Every file lies inside the package, without byte order mark and with line feeds only."""
    data = _file(name).read_bytes()
    assert not data.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in data
    assert data.endswith(b"\n")


@pytest.mark.parametrize(("name", "least"), [("questions", 200), ("arithmetic", 100), ("prose", 10)])
def test_there_are_enough_documents(name: str, least: int) -> None:
    """Scores have a usable standard error; no document is there twice."""
    docs = _docs(name)
    assert len(docs) >= least
    assert len({doc["id"] for doc in docs}) == len({doc.get("question", doc["id"]) for doc in docs}) == len(docs)


@pytest.mark.parametrize("name", ["questions", "questions_fewshot"])
def test_questions_have_one_right_choice_of_four(name: str) -> None:
    """The answer is an index into four different choices."""
    for doc in _docs(name):
        assert len(set(doc["choices"])) == 4, doc["id"]
        assert doc["answer"] in range(4), doc["id"]


def test_no_place_is_right_more_often() -> None:
    """A model that always takes the same letter scores a quarter."""
    counts = Counter(doc["answer"] for doc in _docs("questions"))
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("kind", ["questions", "arithmetic"])
def test_examples_are_no_test_documents(kind: str) -> None:
    """No few-shot example gives an evaluated answer away."""
    assert not {d["question"] for d in _docs(kind)} & {d["question"] for d in _docs(f"{kind}_fewshot")}


def test_worked_solutions_end_in_their_answer() -> None:
    """What examples show is what the filter then reads from the model."""
    (steps,) = tasks.ARITHMETIC.filters.values()
    for doc in _docs("arithmetic_fewshot"):
        assert steps[0]([doc["solution"]]) == [str(doc["answer"])]


def test_questions_build_a_request_a_choice() -> None:
    """Every document asks for its four choices behind one prompt."""
    asked = _asked("starter_questions")
    assert len(asked) == len(_docs("questions"))
    assert all(len(requests) == 4 for requests in asked)
    assert asked[2][2] == LoglikelihoodRequest("Question: What is the capital city of France?\nAnswer:", " Paris")


def test_arithmetic_shows_four_worked_examples() -> None:
    """The prompt holds the same four solutions for every document, then the question."""
    asked = _asked("starter_arithmetic")
    assert len(asked) == len(_docs("arithmetic"))
    request = asked[0][0]
    assert isinstance(request, GenerationRequest)
    assert request.prompt is not None
    assert request.prompt.startswith(
        "Question: What is 5 + 6?\nAnswer: 5 plus 6 is 11. The answer is 11.\n\nQuestion: What is 18 - 9?\nAnswer:"
    )
    assert request.prompt.count("The answer is") == 4
    assert request.prompt.endswith("\n\nQuestion: What is 7 + 5?\nAnswer:")
    assert request.stop == ("\n\n", "Question:")


def test_prose_is_scored_whole() -> None:
    """Each text is one request, with nothing before it."""
    expected = [[RollingLoglikelihoodRequest(doc["text"])] for doc in _docs("prose")]
    assert _asked("starter_prose", num_fewshot=0) == expected


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" 7 plus 5 is 12. The answer is 12.", True),
        (" The answer is 1,200.", False),
        (" 12, I think", True),
        (" Twelve.", False),
        (" The answer is -12.", False),
        (" 12 + 5 = 17", False),
    ],
)
def test_the_last_number_is_the_answer(text: str, right: bool) -> None:
    """Commas are dropped, signs count, and a text without a number is wrong."""
    assert _exact_match({"answer": 12}, text) == right


def test_thousands_may_be_grouped() -> None:
    """1,200 and 1200 are the same number."""
    assert _exact_match({"answer": 1200}, " So it is 1,200.")


def _exact_match(doc: dict[str, Any], text: str) -> bool:
    (metric,) = tasks.ARITHMETIC.metrics
    assert isinstance(metric, Metric)
    scored = tasks.ARITHMETIC.scored(doc, [GenerationOutput(text=text)], [metric])
    return bool(metric.score(scored["last-number"]))
