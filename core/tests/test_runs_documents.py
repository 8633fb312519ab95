"""What is wrong with one document is said before a model is loaded, and stays its own affair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from evalkit.errors import ConfigError, DocumentError
from evalkit.runs.plan import Plan, make_plan
from evalkit.runs.spec import RunSpec

if TYPE_CHECKING:
    from conftest import Toy

TASK = """
from evalkit.tasks import DatasetSpec, Generate, Perplexity
DATA = DatasetSpec("toy/facts")
{definition}
"""


def _plan(toy: Toy, *tasks: str, **fields: Any) -> Plan:
    return make_plan(RunSpec(tasks=list(tasks), engine="e", model="m", **{"data_dir": str(toy.data_dir), **fields}))


def _define(toy: Toy, definition: str) -> None:
    toy.site.module("own_tasks", TASK.format(definition=definition))


@pytest.mark.parametrize("value", [None, 7, ["a"], {"a": 1}])
def test_a_text_that_is_none_is_not_asked_as_a_word(toy: Toy, value: Any) -> None:
    """Nor a number or a list: the document and its field are named, as a question and as an example."""
    prompt = "prompt=lambda d: f\"{d['q']}\", answer=lambda d: 'a'"
    _define(toy, f"T = Generate(name='t', dataset=DATA, test_split='test', {prompt}, text_fields=('q',))")
    toy.write("test", [{"q": "fine"}, {"q": value}])
    first, second = _plan(toy, "own_tasks:T").tasks["t"].docs
    assert "task 't': document 1 of split 'test' holds an unusable value in field 'q' (TypeError" in str(second.error)
    assert first.error is None
    with pytest.raises(DocumentError, match=r"a few-shot example holds an unusable value in field 'q'"):
        _plan(toy, "own_tasks:T", num_fewshot=1, limit=1)


def test_whatever_a_tasks_own_code_raises_is_its_documents_error(toy: Toy) -> None:
    """Not only the errors that wrong values raise as a rule."""
    _define(
        toy,
        "def check(doc):\n    assert doc['text'] == 'fine', 'not fine'\n    return doc['text']\n"
        "T = Perplexity(name='t', dataset=DATA, test_split='test', text=check)",
    )
    toy.write("test", [{"text": "fine"}, {"text": "bad"}])
    first, second = _plan(toy, "own_tasks:T").tasks["t"].docs
    assert (first.error, "(AssertionError: not fine)" in str(second.error)) == (None, True)


def test_a_task_words_its_own_warning_before_code_is_run(toy: Toy) -> None:
    """A sandbox is claimed only where there is one."""
    definition = "class Unsafe(Perplexity):\n    code_notice = 'runs code WITHOUT a sandbox'\n"
    _define(
        toy,
        definition + "T = Unsafe(name='t', dataset=DATA, test_split='test', text=lambda d: d['text'], runs_code=True)",
    )
    with pytest.raises(ConfigError, match=r"^task 't' runs code WITHOUT a sandbox. Allow it with --allow-code-exec"):
        _plan(toy, "own_tasks:T")
