"""One task of each kind, on documents that come with the package."""

from __future__ import annotations

from pathlib import Path

from evalkit.tasks import DatasetSpec, FewShot, Generate, Group, Metric, MultipleChoice, Perplexity, regex
from evalkit.tasks.fewshot import Doc
from evalkit.tasks.metrics import exact_match


def _data(**splits: str) -> DatasetSpec:
    folder = Path(__file__).parent / "data"
    return DatasetSpec("evalkit-tasks-starter", files={split: str(folder / name) for split, name in splits.items()})


def _prompt(doc: Doc) -> str:
    return f"Question: {doc['question']}\nAnswer:"


QUESTIONS = MultipleChoice(
    name="starter_questions",
    dataset=_data(test="questions.jsonl", fewshot="questions_fewshot.jsonl"),
    test_split="test",
    # The same examples for every question: engines compute them once.
    fewshot=FewShot(split="fewshot", sampler="first_n"),
    prompt=_prompt,
    choices=lambda doc: doc["choices"],
    gold=lambda doc: doc["answer"],
    metrics=("acc", "acc_norm"),
)

ARITHMETIC = Generate(
    name="starter_arithmetic",
    dataset=_data(test="arithmetic.jsonl", fewshot="arithmetic_fewshot.jsonl"),
    test_split="test",
    fewshot=FewShot(n=4, split="fewshot", sampler="first_n"),
    prompt=_prompt,
    answer=lambda doc: str(doc["answer"]),
    example=lambda doc: str(doc["solution"]),
    # A model that goes on to a question of its own would otherwise be judged by that question's numbers.
    stop=("\n\n", "Question:"),
    max_new_tokens=48,
    filters={"last-number": (regex(r"(-?[0-9][0-9,]*)", select=-1),)},
    metrics=(Metric("exact_match", exact_match(regexes_to_ignore=(",",))),),
)

PROSE = Perplexity(
    name="starter_prose",
    dataset=_data(test="prose.jsonl"),
    test_split="test",
    text=lambda doc: str(doc["text"]),
)

STARTER = Group("starter", (QUESTIONS.name, ARITHMETIC.name, PROSE.name))
