"""All that can go wrong before a model is loaded goes wrong here, and the same prompts come every time."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.errors import (
    ConfigError,
    DataError,
    DatasetNotFoundError,
    DocumentError,
    EmptyDatasetError,
    PluginError,
    UnknownNameError,
)
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.runs.plan import Plan, load_task, make_plan
from evalkit.runs.spec import RunSpec

if TYPE_CHECKING:
    from conftest import Toy

TASK = """
from evalkit.tasks import DatasetSpec, FewShot, Generate, Group, Loglikelihood, MultipleChoice, Perplexity
DATA = DatasetSpec("toy/facts")
{definition}
"""


def _plan(toy: Toy, *tasks: str, **fields: Any) -> Plan:
    return make_plan(RunSpec(tasks=list(tasks), engine="e", model="m", **{"data_dir": str(toy.data_dir), **fields}))


def _define(toy: Toy, definition: str, module: str = "own_tasks") -> None:
    """A module with tasks of its own, to be named as "own_tasks:NAME"."""
    toy.site.module(module, TASK.format(definition=definition))


def _prompts(plan: Plan, task: str) -> list[str]:
    asked = plan.tasks[task].ask(1234, None)
    requests = [item.request for doc in asked for item in doc]
    return [request.context for request in requests if isinstance(request, LoglikelihoodRequest)]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_tasks_come_in_the_order_asked_and_once(toy: Toy) -> None:
    """A task asked twice, by itself and through its group, runs once; groups know their leaves."""
    plan = _plan(toy, "toy_pages", "toy", "toy_pages")
    assert list(plan.tasks) == ["toy_pages", "toy_choice", "toy_target", "toy_text"]
    group, leaves = plan.groups["toy"]
    assert group.name == "toy"
    assert leaves == ("toy_choice", "toy_target", "toy_text", "toy_pages")


def test_groups_may_hold_groups(toy: Toy) -> None:
    """The leaves of inner groups are the outer's, each once."""
    _define(toy, "OUTER = Group('outer', ('toy', 'toy_pages'))")
    plan = _plan(toy, "own_tasks:OUTER")
    assert list(plan.groups) == ["toy", "own_tasks:OUTER"]
    assert plan.groups["own_tasks:OUTER"][1] == plan.groups["toy"][1]


def test_a_group_in_a_circle_is_the_plugins_mistake(toy: Toy) -> None:
    """No endless recursion."""
    _define(toy, "A = Group('a', ('own_tasks:B',))\nB = Group('b', ('own_tasks:A',))")
    with pytest.raises(PluginError, match=r"holds itself"):
        _plan(toy, "own_tasks:A")


def test_an_unknown_task_is_named(toy: Toy) -> None:
    """With the nearest names."""
    with pytest.raises(UnknownNameError, match=r"unknown task 'toy_choise'. Did you mean 'toy_choice'"):
        _plan(toy, "toy", "toy_choise")


def test_an_unknown_metric_is_named_before_inference(toy: Toy) -> None:
    """A task with a metric that nobody provides cannot start."""
    _define(
        toy, "T = Perplexity(name='t', dataset=DATA, test_split='test', text=lambda d: d['text'], metrics=('per',))"
    )
    with pytest.raises(UnknownNameError, match=r"unknown metric 'per'"):
        _plan(toy, "own_tasks:T")


def test_a_task_in_development_needs_no_plugin(toy: Toy) -> None:
    """`module:attribute` is a task."""
    assert load_task("toy_benchmark:CHOICE").name == "toy_choice"


# ── documents ───────────────────────────────────────────────────────────────────────────────────────────────
def test_a_limit_takes_the_first_documents(toy: Toy) -> None:
    """The documents are the first ones in file order, and the plan knows how many there were."""
    planned = _plan(toy, "toy_pages", limit=3).tasks["toy_pages"]
    assert [item.doc_id for item in planned.docs] == [0, 1, 2]
    assert [item.doc["question"] for item in planned.docs] == ["0 + 0?", "1 + 1?", "2 + 2?"]
    assert planned.available == 4
    assert len(_plan(toy, "toy_pages", limit=99).tasks["toy_pages"].docs) == 4


def test_prepared_and_kept_documents(toy: Toy) -> None:
    """Fields are computed before documents are chosen, and documents numbered afterwards."""
    _define(
        toy,
        "T = Perplexity(name='t', dataset=DATA, test_split='test', text=lambda d: d['double'],\n"
        "    prepare=lambda d: {'double': d['text'] * 2}, keep=lambda d: 'Page 1' not in d['double'])",
    )
    planned = _plan(toy, "own_tasks:T", limit=2).tasks["t"]
    assert [(item.doc_id, item.doc["double"][:6]) for item in planned.docs] == [(0, "Page 0"), (1, "Page 2")]
    assert planned.available == 3


def test_keeping_no_document_is_an_error(toy: Toy) -> None:
    """A score over nothing is none."""
    _define(toy, "T = Perplexity(name='t', dataset=DATA, test_split='test', text=lambda d: '', keep=lambda d: False)")
    with pytest.raises(EmptyDatasetError, match=r"task 't' keeps none of the 4 documents of toy/facts"):
        _plan(toy, "own_tasks:T")


@pytest.mark.parametrize(
    "fields",
    [
        "text=lambda d: d['txt']",
        "text=lambda d: d['text'], prepare=lambda d: {'a': d['txt']}",
        "text=lambda d: d['text'], keep=lambda d: d['txt'] > 1",
        "text=lambda d: d['text'], counted=lambda d: d['txt']",
    ],
)
def test_a_missing_field_is_named_before_inference(toy: Toy, fields: str) -> None:
    """Whoever reads it first, be it only the score: task, document, field, and what is there instead."""
    _define(toy, f"T = Perplexity(name='t', dataset=DATA, test_split='test', {fields})")
    with pytest.raises(
        DocumentError, match=r"task 't': document 0 of split 'test' lacks the field 'txt'. It has: answer"
    ):
        _plan(toy, "own_tasks:T")


def test_one_bad_document_among_good_ones_is_left_out(toy: Toy) -> None:
    """It keeps its number and says what is wrong with it; nothing is asked about it."""
    toy.write("test", [{"text": "fine"}, {"txt": "not"}, {"text": "fine"}])
    planned = _plan(toy, "toy_pages").tasks["toy_pages"]
    errors = [item.error or "" for item in planned.docs]
    assert [bool(error) for error in errors] == [False, True, False]
    assert errors[1].startswith("task 'toy_pages': document 1 of split 'test' lacks the field 'text'")
    assert [len(asked) for asked in planned.ask(1234, None)] == [1, 0, 1]
    assert [item.doc_id for item in planned.docs] == [0, 1, 2]


def test_a_bad_document_changes_no_other_ones_examples(toy: Toy) -> None:
    """Its draw takes place as well."""
    good = [{"question": f"{n} or {n}?", "choices": ["a", "b"], "answer": 0} for n in range(3)]
    toy.write("test", good)
    shots = [item.shots for item in _plan(toy, "toy_choice").tasks["toy_choice"].docs]
    toy.write("test", [good[0], {**good[1], "choices": []}, good[2]])
    planned = _plan(toy, "toy_choice").tasks["toy_choice"]
    assert planned.docs[1].error
    assert [planned.docs[0].shots, planned.docs[2].shots] == [shots[0], shots[2]]


# ── examples ────────────────────────────────────────────────────────────────────────────────────────────────
def test_examples_are_drawn_in_document_order(toy: Toy) -> None:
    """One generator with the run's seed, over the pool's documents in file order."""
    pool = [f"Q: {n} + {n}?\nA: {2 * n}\n\n" for n in range(10, 15)]
    reference = random.Random(7)
    expected = ["".join(reference.sample(pool, 2)) + f"Q: {n} + {n}?\nA:" for n in range(4)]
    assert _prompts(_plan(toy, "toy_choice", num_fewshot=2, seed=7), "toy_choice")[::3] == expected


def test_a_limit_changes_no_prompt(toy: Toy) -> None:
    """The first documents are asked the same, with or without a limit."""
    whole = _prompts(_plan(toy, "toy_choice", num_fewshot=3), "toy_choice")
    for limit in (1, 2, 3):
        assert _prompts(_plan(toy, "toy_choice", num_fewshot=3, limit=limit), "toy_choice") == whole[: 3 * limit]


def test_the_number_of_examples_is_the_tasks_or_the_runs(toy: Toy) -> None:
    """The task says how many by default; the run may say otherwise, none included."""
    assert [_plan(toy, "toy_choice", num_fewshot=n).tasks["toy_choice"].num_fewshot for n in (None, 0, 3)] == [1, 0, 3]
    assert _prompts(_plan(toy, "toy_choice", num_fewshot=0), "toy_choice")[0] == "Q: 0 + 0?\nA:"


def test_a_perplexity_ignores_the_number_of_examples(toy: Toy) -> None:
    """`--num-fewshot 5` on a group of all kinds leaves whole texts as they are."""
    assert _plan(toy, "toy_pages", num_fewshot=5).tasks["toy_pages"].num_fewshot == 0


def test_a_pool_that_is_too_small_names_its_task(toy: Toy) -> None:
    """The error says whose examples they are."""
    with pytest.raises(ConfigError, match=r"task 'toy_choice': 6 few-shot examples needed, but the pool holds 5"):
        _plan(toy, "toy_choice", num_fewshot=6)


def test_missing_examples_name_their_task(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror without the training split says what it was wanted for; without examples it is not needed."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    (toy.data_dir / "toy" / "facts" / "default" / "train.jsonl").unlink()
    with pytest.raises(
        DatasetNotFoundError, match=r"few-shot examples of task 'toy_choice': data set 'toy/facts', split 'train'"
    ):
        _plan(toy, "toy_choice")
    assert _plan(toy, "toy_choice", num_fewshot=0).tasks


def test_a_bad_example_is_named_as_one(toy: Toy) -> None:
    """It is not mistaken for a document of the test split."""
    toy.write("train", [{"question": "no choices", "answer": 0}])
    with pytest.raises(DocumentError, match=r"task 'toy_choice': a few-shot example lacks the field 'choices'"):
        _plan(toy, "toy_choice")


def test_listed_examples_need_no_split(toy: Toy) -> None:
    """Examples written into the task are the pool."""
    _define(
        toy,
        "T = Loglikelihood(name='t', dataset=DATA, test_split='test', prompt=lambda d: d['question'],\n"
        "    answer=lambda d: str(d['answer']),\n"
        "    fewshot=FewShot(n=1, samples=({'question': 'Q', 'answer': 'A'},), sampler='first_n'))",
    )
    assert _prompts(_plan(toy, "own_tasks:T"), "t")[0] == "Q A\n\n0 + 0?"


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────
def test_equal_requests_have_equal_keys(toy: Toy) -> None:
    """A document that occurs twice is asked once; different choices have different keys."""
    toy.write("test", [{"question": "Q?", "choices": ["a", "b"], "answer": 0}] * 2)
    first, second = _plan(toy, "toy_choice", num_fewshot=0).tasks["toy_choice"].ask(1234, None)
    assert [asked.key for asked in first] == [asked.key for asked in second]
    assert len({asked.key for asked in first}) == 2


def test_every_sampled_request_has_a_seed_of_its_own(toy: Toy) -> None:
    """Sampling draws the same in a resumed run: seeds depend on the run's seed and the document alone."""
    plan = _plan(toy, "toy_text")

    def seeds(plan: Plan, seed: int) -> list[int | None]:
        requests = [asked.request for doc in plan.tasks["toy_text"].ask(seed, None) for asked in doc]
        return [request.seed for request in requests if isinstance(request, GenerationRequest)]

    assert len(set(seeds(plan, 1))) == 4
    assert seeds(plan, 1) == seeds(_plan(toy, "toy_text"), 1)
    assert not set(seeds(plan, 1)) & set(seeds(plan, 2))
    assert seeds(_plan(toy, "toy_text", limit=2), 1) == seeds(plan, 1)[:2]


def test_a_chat_template_wraps_every_prompt(toy: Toy) -> None:
    """The session's template gets the messages; its text is what is asked."""
    asked = _plan(toy, "toy_target").tasks["toy_target"].ask(1234, lambda messages: f"<{messages[0]['content']}>")
    assert asked[0][0].request.context == "<Q: 0 + 0?\nA:>"  # type: ignore[union-attr]


def test_a_data_dir_that_is_missing_is_named(toy: Toy, tmp_path: Path) -> None:
    """Before anything else is tried."""
    with pytest.raises(DatasetNotFoundError, match=r"does not exist. Check --data-dir"):
        _plan(toy, "toy", data_dir=str(tmp_path / "gone"))


def test_a_number_of_examples_that_belongs_to_the_task_stays(toy: Toy) -> None:
    """As in lm-evaluation-harness, and a warning says so: who asked for examples must not read another score."""
    source = (
        "T = MultipleChoice(name='t', dataset=DATA, test_split='test', train_split='train',"
        " choices=lambda d: d['choices'], gold=lambda d: 0, fewshot=FewShot(fixed=True))"
    )
    _define(toy, source)
    planned = _plan(toy, "own_tasks:T", num_fewshot=2).tasks["t"]
    assert (planned.num_fewshot, {item.shots for item in planned.docs}) == (0, {()})
    assert planned.warnings == ("stays 0-shot, as it is defined: the 2 examples asked for were left out",)
    assert [_plan(toy, "own_tasks:T", num_fewshot=n).tasks["t"].warnings for n in (0, None)] == [(), ()]


# ── complete data ───────────────────────────────────────────────────────────────────────────────────────────
ROWS = "DATA = DatasetSpec('toy/facts', rows={{'test': {test}, 'train': {train}}})\n"
PAGES = "T = Perplexity(name='t', dataset=DATA, test_split='test', text=lambda d: d['text'])"


@pytest.mark.parametrize("rows", [3, 5])
def test_a_split_of_the_wrong_length_is_refused(toy: Toy, rows: int) -> None:
    """Half a download would give a score that looks like one."""
    _define(toy, ROWS.format(test=rows, train=5) + PAGES)
    with pytest.raises(DataError, match=rf"has 4 documents where {rows} belong.*evalkit data get t"):
        _plan(toy, "own_tasks:T")


def test_draws_from_part_of_a_split_are_reported(toy: Toy) -> None:
    """They are not those that others get; the first examples are."""
    source = (
        "T = MultipleChoice(name='t', dataset=DATA, test_split='test', train_split='train',"
        " choices=lambda d: d['choices'], gold=lambda d: 0, fewshot=FewShot(n=1, sampler='{sampler}'))"
    )
    _define(toy, ROWS.format(test=4, train=50) + source.format(sampler="random"))
    planned = _plan(toy, "own_tasks:T").tasks["t"]
    assert planned.warnings == ("examples are drawn from 5 of the 50 documents of split 'train'",)
    _define(toy, ROWS.format(test=4, train=50) + source.format(sampler="first_n"), "other_tasks")
    assert _plan(toy, "other_tasks:T").tasks["t"].warnings == ()
