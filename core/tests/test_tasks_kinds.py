"""Each kind of task asks exactly the texts that lm-evaluation-harness asks, and reads its answers right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from evalkit.errors import DocumentError
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Message,
    RollingLoglikelihoodOutput,
    RollingLoglikelihoodRequest,
)
from evalkit.tasks import (
    DatasetSpec,
    FewShot,
    Generate,
    Loglikelihood,
    MultipleChoice,
    Perplexity,
    Task,
    lowercase,
    regex,
)
from evalkit.tasks.base import checked
from evalkit.tasks.context import Context
from evalkit.tasks.metrics import BUILT_IN
from evalkit.tasks.scored import ScoredChoice, ScoredGeneration, ScoredPage, ScoredTarget

DATA = DatasetSpec("toy/facts", "easy")
DOC = {"q": "One?", "choices": ["no", "yes"], "gold": 1, "text": "One page.\n Two  words"}
SHOT = {"q": "Zero?", "choices": ["nil", "null"], "gold": 0, "text": ""}
MUTUAL = tuple(metric for metric in BUILT_IN if metric.unconditional)


def _choice(**fields: Any) -> MultipleChoice:
    given: dict[str, Any] = {
        "prompt": lambda doc: f"Q: {doc['q']}\nA:",
        "choices": lambda doc: doc["choices"],
        "gold": lambda doc: doc["gold"],
        **fields,
    }
    return MultipleChoice(name="quiz", dataset=DATA, test_split="test", **given)


def _generate(**fields: Any) -> Generate:
    given: dict[str, Any] = {
        "prompt": lambda doc: doc["q"],
        "answer": lambda doc: doc["choices"][doc["gold"]],
        **fields,
    }
    return Generate(name="write", dataset=DATA, test_split="test", **given)


def _page(**fields: Any) -> Perplexity:
    return Perplexity(name="pages", dataset=DATA, test_split="test", text=lambda doc: doc["text"], **fields)


TARGET = Loglikelihood(
    name="target",
    dataset=DATA,
    test_split="test",
    prompt=lambda doc: doc["q"],
    answer=lambda doc: f" {doc['choices'][1]}",
)


def _context(task: Task, **options: Any) -> Context:
    return Context("Answer.\n", (task.shot(SHOT),), "\n\n", **options)


def _template(messages: Sequence[Message]) -> str:
    return "".join(f"<{m['role']}>{m['content']}</>" for m in messages) + "<assistant>"


# ── multiple choice ─────────────────────────────────────────────────────────────────────────────────────────
def test_every_choice_is_scored_behind_the_prompt() -> None:
    """Description, examples with their right choice, question; then each choice behind the delimiter."""
    task = _choice()
    context = "Answer.\nQ: Zero?\nA: nil\n\nQ: One?\nA:"
    assert task.requests(DOC, _context(task), ()) == (
        LoglikelihoodRequest(context, " no"),
        LoglikelihoodRequest(context, " yes"),
    )


def test_a_chat_template_takes_the_delimiter_away() -> None:
    """Description is the system message, examples and question the user's; the choice follows at once."""
    task = _choice()
    asked = task.requests(DOC, _context(task, chat_template=_template), ())
    text = "<system>Answer.\n</><user>Q: Zero?\nA: nil\n\nQ: One?\nA:</><assistant>"
    assert asked == (LoglikelihoodRequest(text, "no"), LoglikelihoodRequest(text, "yes"))
    bare = task.requests(DOC, Context(chat_template=_template), ())[0]
    assert bare == LoglikelihoodRequest("<user>Q: One?\nA:</><assistant>", "no")


def test_one_continuation_behind_every_context() -> None:
    """Winogrande's way: the choices are contexts, one continuation follows each."""
    task = _choice(prompt=None, continuation=lambda doc: "was it.")
    shots = "Answer.\nnil was it.\n\n"
    assert task.requests(DOC, _context(task), ()) == (
        LoglikelihoodRequest(shots + "no", " was it."),
        LoglikelihoodRequest(shots + "yes", " was it."),
    )


def test_choices_without_context_are_asked_for_mutual_information() -> None:
    """Only a metric that wants them asks for the bare choices, behind the others."""
    task = _choice(target_delimiter="")
    asked = task.requests(DOC, Context(), MUTUAL)
    assert asked[2:] == (LoglikelihoodRequest("", "no"), LoglikelihoodRequest("", "yes"))
    outputs = [LoglikelihoodOutput(-float(n)) for n in range(4)]
    assert task.scored(DOC, outputs, MUTUAL) == {"none": ScoredChoice((0.0, -1.0), ("no", "yes"), (1,), (-2.0, -3.0))}
    assert task.scored(DOC, outputs[:2], ()) == {"none": ScoredChoice((0.0, -1.0), ("no", "yes"), (1,))}


@pytest.mark.parametrize(
    ("gold", "indices"), [(1, (1,)), ("yes", (1,)), ([0, 1], (0, 1)), (2, ()), (-1, ()), ([1, 7], (1,)), (True, (1,))]
)
def test_the_right_answer_is_an_index_a_text_or_several(gold: Any, indices: tuple[int, ...]) -> None:
    """An index that names no choice (hidden labels are -1) is no right answer."""
    assert _choice().gold_indices({**DOC, "gold": gold}) == indices


@pytest.mark.parametrize("gold", [2, -1, "perhaps", [], [0, 9]])
def test_a_right_answer_that_is_no_choice_is_refused(gold: Any) -> None:
    """Nobody could answer such a question: the data is wrong, not the model."""
    with pytest.raises(DocumentError, match=r"in field 'gold' .*is none of the 2 choices"):
        checked(_choice(), 0, {**DOC, "gold": gold}, _choice().check)


def test_a_single_choice_is_refused() -> None:
    """A question with one choice is always answered right: the data is wrong."""
    with pytest.raises(DocumentError, match=r"needs two choices or more, not 1"):
        checked(_choice(), 0, {**DOC, "choices": ["yes"]}, _choice().check)


# ── one target ──────────────────────────────────────────────────────────────────────────────────────────────
def test_a_target_is_scored_behind_its_prompt() -> None:
    """One request: the target as it is, behind examples whose targets follow the delimiter."""
    asked = TARGET.requests(DOC, _context(TARGET), ())
    assert asked == (LoglikelihoodRequest("Answer.\nZero?  null\n\nOne?", " yes"),)
    assert TARGET.scored(DOC, [LoglikelihoodOutput(-2.0, True)], ()) == {"none": ScoredTarget(-2.0, True)}
    assert TARGET.target(DOC) == " yes"


# ── generation ──────────────────────────────────────────────────────────────────────────────────────────────
def test_generation_asks_up_to_the_next_example() -> None:
    """The stop is the delimiter of examples by default; the sampling options are the task's."""
    task = _generate(max_new_tokens=7, temperature=0.5, top_p=0.9, top_k=3)
    assert task.requests(DOC, _context(task), ()) == (
        GenerationRequest(
            prompt="Answer.\nZero? nil\n\nOne?", stop=("\n\n",), max_new_tokens=7, temperature=0.5, top_p=0.9, top_k=3
        ),
    )
    own = _generate(stop=(), example=lambda doc: "worked out")
    assert own.requests(DOC, _context(own), ()) == (GenerationRequest(prompt="Answer.\nZero? worked out\n\nOne?"),)


def test_every_filter_scores_on_its_own() -> None:
    """Steps of a filter follow one another; a task without filters compares the text as it is."""
    task = _generate(filters={"raw": (), "found": (regex(r"is (\w+)"), lowercase)})
    scored = task.scored(DOC, [GenerationOutput("It is YES.")], ())
    assert scored == {
        "raw": ScoredGeneration(("It is YES.",), ("yes",)),
        "found": ScoredGeneration(("yes",), ("yes",)),
    }
    assert _generate().scored(DOC, [GenerationOutput("a")], ()) == {"none": ScoredGeneration(("a",), ("yes",))}


def test_several_answers_may_be_accepted() -> None:
    """A list of answers is compared with each; the first is the one shown in examples."""
    task = _generate(answer=lambda doc: ["yes", "yep"])
    assert task.answers(DOC) == ("yes", "yep")
    assert task.shot(DOC).render("\n") == "One? yes\n"


def test_an_answer_that_is_no_text_is_noticed_before_inference() -> None:
    """A number where a text is needed fails the check, not the scores hours later."""
    with pytest.raises(DocumentError, match=r"document 4 of split 'test' holds an unusable value"):
        checked(_generate(answer=lambda doc: 7), 4, DOC, _generate(answer=lambda doc: 7).check)


# ── whole texts ─────────────────────────────────────────────────────────────────────────────────────────────
def test_a_page_is_asked_bare() -> None:
    """Neither description nor template comes before a text; words are counted as the harness splits them."""
    task = _page()
    asked = task.requests(DOC, Context("Answer.", chat_template=_template), ())
    assert asked == (RollingLoglikelihoodRequest("One page.\n Two  words"),)
    assert task.scored(DOC, [RollingLoglikelihoodOutput(-5.0)], ()) == {"none": ScoredPage(-5.0, 4, 21)}


def test_words_may_be_counted_on_another_text() -> None:
    """WikiText scores a cleaned page and counts on the original."""
    task = _page(counted=lambda doc: "naïve text")
    assert task.scored(DOC, [RollingLoglikelihoodOutput(-5.0)], ()) == {"none": ScoredPage(-5.0, 2, 11)}
    assert task.target(DOC) == "naïve text"


def test_a_page_takes_no_examples() -> None:
    """Examples mean nothing to a perplexity."""
    assert not Perplexity.takes_shots
    with pytest.raises(ValueError, match=r"takes no few-shot examples"):
        _page().shot(DOC)


# ── all kinds ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("fields", "split", "shots"),
    [
        ({"test_split": "test", "validation_split": "val", "train_split": "train"}, "test", "train"),
        ({"test_split": None, "validation_split": "val", "train_split": "train"}, "val", "train"),
        ({"test_split": "test", "validation_split": "val"}, "test", "val"),
        ({"test_split": "test"}, "test", "test"),
        ({"test_split": "test", "train_split": "train", "fewshot": FewShot(split="dev")}, "test", "dev"),
    ],
)
def test_splits(fields: dict[str, Any], split: str, shots: str) -> None:
    """Evaluated: test, else validation. Examples: the declared split, else train, else validation, else test."""
    task = Perplexity(name="pages", dataset=DATA, text=lambda doc: "", **fields)
    assert (task.split, task.fewshot_split) == (split, shots)


@pytest.mark.parametrize(
    ("test_split", "fewshot", "may"),
    [("test", "test", True), ("test", None, False), (None, None, True), ("test", "dev", False)],
)
def test_the_harness_compares_declared_splits(test_split: str | None, fewshot: str | None, may: bool) -> None:
    """A document is kept out of its own examples where the *declared* splits are equal, None included."""
    task = Perplexity(
        name="p", dataset=DATA, text=str, test_split=test_split, validation_split="val", fewshot=FewShot(split=fewshot)
    )
    assert task.pool_may_hold_doc is may


def test_prepared_fields_are_added() -> None:
    """Computed fields join the document's own and win; the document itself is not changed."""
    task = _page(prepare=lambda doc: {"text": doc["text"].upper(), "new": 1})
    doc = {"text": "a", "kept": 2}
    assert task.prepared(doc) == {"text": "A", "kept": 2, "new": 1}
    assert doc == {"text": "a", "kept": 2}
    assert _page().prepared(doc) == doc


@pytest.mark.parametrize(
    ("doc", "index", "message"),
    [
        (
            {"b": 1, "a": 2},
            3,
            "document 3 of split 'test' lacks the field 'text'. It has: a, b. Check that the data is toy/facts/easy",
        ),
        ({}, None, "a few-shot example lacks the field 'text'. It has: none."),
        ({None: ["x"], "a": 2}, 0, "document 0 of split 'test' lacks the field 'text'. It has: None, a"),
        (
            {"text": None},
            0,
            "document 0 of split 'test' holds an unusable value in field 'text' (AttributeError: 'NoneType'",
        ),
    ],
)
def test_a_document_that_does_not_fit_is_named(doc: dict[Any, Any], index: int | None, message: str) -> None:
    """The error has task, document, field and what the document has instead."""
    task = _page(prepare=lambda doc: {"text": doc["text"].upper()})
    with pytest.raises(DocumentError) as caught:
        checked(task, index, doc, task.prepared)
    assert str(caught.value).startswith("task 'pages': ")
    assert message in str(caught.value)


def test_an_example_without_answer_has_no_delimiters() -> None:
    """The harness leaves both delimiters out where an example's answer is empty."""
    task = _generate(example=lambda doc: "")
    assert task.shot(DOC).render("\n\n") == "One?"
