"""A task in a file of its own, Python or YAML, is what it is in a package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import ConfigError, DocumentError
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.runs.plan import Plan, make_plan
from evalkit.runs.spec import RunSpec
from evalkit.tasks import Generate, Group, MultipleChoice, Perplexity
from evalkit.tasks.files import is_task_file, read_tasks, top_level

pytest.importorskip("jinja2", reason="tasks in YAML need Jinja templates")

ROWS = [
    {"question": "One?", "options": ["no", "yes"], "right": 1},
    {"question": "Two?", "options": ["c", "d"], "right": 0},
]
QUIZ = """
task: quiz
kind: multiple_choice
dataset: {files: {test: rows.jsonl}}
test_split: test
fewshot: {n: 1}
prompt: "Question: {{question}}\\nAnswer:"
choices: options
gold: right
metrics: [acc]
"""
WRITE = """
- task: write
  kind: generate
  dataset: {files: {test: rows.jsonl}}
  test_split: test
  prompt: question
  answer: "{{options[right]}}"
  stop: ["."]
  max_new_tokens: 5
  filters: {first: [{regex: "(\\\\w+)", select: -1}, lowercase]}
- task: page
  kind: perplexity
  dataset: {files: {test: rows.jsonl}}
  test_split: test
  text: "{{question}} {{options | join(', ')}}\\n"
- group: both
  tasks: [write, page]
"""
PYTHON = """
from pathlib import Path

from evalkit.tasks import DatasetSpec, Group, Perplexity

ROWS = DatasetSpec("rows", files={"test": str(Path(__file__).with_name("rows.jsonl"))})
A = Perplexity(name="a", dataset=ROWS, test_split="test", text=lambda doc: doc["question"])
B = Perplexity(name="b", dataset=ROWS, test_split="test", text=lambda doc: doc["question"])
C = Perplexity(name="c", dataset=ROWS, test_split="test", text=lambda doc: doc["question"])
PAIR = Group("pair", ("a", "b"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with documents and task files."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for name, text in {"quiz.yaml": QUIZ, "write.yml": WRITE, "own.py": PYTHON}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def _plan(*names: object, **fields: Any) -> Plan:
    return make_plan(RunSpec(tasks=[str(name) for name in names], engine="e", model="m", **fields))


def test_names_of_files_are_recognised() -> None:
    """Anything else is a registered name, or module:attribute."""
    assert [is_task_file(name) for name in ("a.py", "./x/b.yaml", "c.yml", "quiz", "quiz:QUIZ")] == [True] * 3 + [
        False
    ] * 2


def test_a_question_in_yaml(folder: Path) -> None:
    """Templates make the prompts, fields the choices, and examples are drawn as ever."""
    planned = _plan(folder / "quiz.yaml").tasks["quiz"]
    assert isinstance(planned.task, MultipleChoice)
    asked = [item.request for item in planned.ask(1234, None)[0]]
    context = "Question: Two?\nAnswer: c\n\nQuestion: One?\nAnswer:"
    assert asked == [LoglikelihoodRequest(context, " no"), LoglikelihoodRequest(context, " yes")]
    assert planned.task.gold_indices(ROWS[0]) == (1,)


def test_several_tasks_in_one_file(folder: Path) -> None:
    """Groups hold tasks of the same file; what no group holds is run by itself."""
    plan = _plan(folder / "write.yml", folder / "own.py")
    assert list(plan.tasks) == ["write", "page", "c", "a", "b"]
    assert {name: leaves for name, (_, leaves) in plan.groups.items()} == {
        "both": ("write", "page"),
        "pair": ("a", "b"),
    }
    write, page = plan.tasks["write"].task, plan.tasks["page"].task
    assert isinstance(write, Generate)
    assert isinstance(page, Perplexity)
    assert plan.tasks["write"].ask(1, None)[1][0].request == GenerationRequest("Two?", stop=(".",), max_new_tokens=5)
    assert write.answers(ROWS[0]) == ("yes",)
    assert write.filters["first"][0](["It is YES"]) == ["YES"]
    assert page.text(ROWS[0]) == "One? no, yes\n"


def test_only_what_no_group_holds_is_at_the_top() -> None:
    """A group inside another is reached through it."""
    groups = {name: Group(name, tasks) for name, tasks in {"g": ("h", "x"), "h": ("y",), "k": ()}.items()}
    assert top_level(groups) == ["g", "k"]


def test_a_field_that_a_template_misses_is_named(folder: Path) -> None:
    """As in a task written in Python."""
    (folder / "rows.jsonl").write_text('{"question": "One?"}\n', encoding="utf-8")
    with pytest.raises(DocumentError, match=r"task 'write': document 0 of split 'test' lacks the field 'options'"):
        _plan(folder / "write.yml")


@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", "{{ question.missing.more }}", "{{ range(10 ** 9) }}"])
def test_a_template_that_fails_is_its_documents_error(folder: Path, template: str) -> None:
    """Whatever the template language raises."""
    changed = (folder / "quiz.yaml").read_text(encoding="utf-8").replace("{{question}}", template)
    (folder / "quiz.yaml").write_text(changed, encoding="utf-8")
    with pytest.raises(DocumentError, match=r"document 0 of split 'test'"):
        _plan(folder / "quiz.yaml", num_fewshot=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind: multiple_choice", "kind: multiple"), "there is no kind 'multiple'. Did you mean 'multiple_choice'"),
        (("gold: right", "golden: right"), "has no field 'golden'. Did you mean 'gold'"),
        (("gold: right", ""), "lacks the field 'gold'"),
        (("kind: multiple_choice", ""), "lacks the field 'kind'"),
        (("fewshot: {n: 1}", "fewshot: {n: many}"), "option 'fewshot'"),
        (("{{question}}", "{{question"), "template"),
        (("task: quiz", "task: [quiz"), "cannot be read"),
        (("prompt:", "prepare:"), "has no field 'prepare'"),
    ],
)
def test_a_wrong_file_is_named(folder: Path, change: tuple[str, str], message: str) -> None:
    """One line with the cause."""
    assert change[0] in QUIZ
    (folder / "quiz.yaml").write_text(QUIZ.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        _plan(folder / "quiz.yaml")
    assert message in str(caught.value)
    assert "quiz.yaml" in str(caught.value) or "template" in message


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.py", None, "does not exist"),
        ("empty.py", "import json", "holds no task"),
        ("wrong.py", "x = (", "line 1 cannot be run (SyntaxError"),
        ("fails.py", "import nosuchmodule", "cannot be run (ModuleNotFoundError"),
        ("list.yaml", "- 3", "holds no mapping"),
    ],
)
def test_a_file_that_gives_no_task(folder: Path, name: str, text: str | None, message: str) -> None:
    """One line with the cause and the next step."""
    if text is not None:
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_tasks(folder / name)
    assert message in str(caught.value)
